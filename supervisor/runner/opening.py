"""Takes a job in hand: finds it again, or accepts it, and becomes its runner.

Owns the meaning of "the same command". A job is known by its name and folder. Nothing is changed
before the runner lock is held.
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from supervisor.core.causes import State
from supervisor.core.events import SpecChanged
from supervisor.core.item_events import ItemsRequeued
from supervisor.core.machine import step
from supervisor.core.state import JobState
from supervisor.journal import JobRecord, Journal, JournalUnavailable
from supervisor.runner import outputs
from supervisor.runner.home import JobFolder
from supervisor.runner.locks import Lock, hold_runner_lock
from supervisor.runner.settings import Settings
from supervisor.spec.batch import batch_of
from supervisor.spec.compare import differences
from supervisor.spec.frozen import freeze, thaw
from supervisor.spec.job import JobSpec
from supervisor.spec.train import train_of

ID_HASH_DIGITS = 6


class Intent(StrEnum):
    """What a person said about a job that exists already."""

    UNSAID = "unsaid"
    CONTINUE = "continue"
    FRESH = "fresh"


class SpecDiffers(Exception):
    """job.yaml is not what the job was accepted with; a person must say what is meant."""

    def __init__(self, job_id: str, lines: list[str]) -> None:
        super().__init__(f"job.yaml has changed since {job_id} was started")
        self.job_id = job_id
        self.lines = lines


class AlreadyDone(Exception):
    """The job succeeded earlier; there is nothing to run."""

    def __init__(self, record: JobRecord) -> None:
        super().__init__(f"{record.id} has already succeeded")
        self.record = record


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job in the hands of its runner."""

    record: JobRecord
    spec: JobSpec
    settings: Settings
    folder: JobFolder
    state_dir: Path
    journal: Journal
    worker_lock: Lock

    @property
    def id(self) -> str:
        """The job's id."""
        return self.record.id


def job_id(name: str, folder: str, generation: int = 1) -> str:
    """Name, a few digits that stand for the folder, and which fresh start it is."""
    digits = hashlib.sha256(folder.encode()).hexdigest()[:ID_HASH_DIGITS]
    return f"{name}-{digits}" + (f"-{generation}" if generation > 1 else "")


@contextmanager
def open_job(
    journal: Journal, state_dir: Path, spec: JobSpec, intent: Intent = Intent.UNSAID
) -> Iterator[OpenJob]:
    """The job of this job.yaml, new or continued, for as long as the block lasts.

    Raises:
        AlreadyRunning: another runner has it.
        AlreadyDone: it succeeded earlier and no fresh start was asked for.
        SpecDiffers: job.yaml changed and nobody said whether to continue or to start afresh.
        JournalError: the state folder refuses.
    """
    while True:
        before = _generations(journal, spec)
        anew = not before or intent is Intent.FRESH
        new_id = job_id(spec.name, str(spec.folder), len(before) + 1)
        # Also for a fresh start: the old job must not run while its outputs are moved.
        wanted = [one.id for one in before[-1:]] + ([new_id] if anew else [])
        with ExitStack() as locks:
            lock = [locks.enter_context(_held(state_dir, one)) for one in wanted][-1]
            # Read again: until the locks were ours, another runner may have moved things on.
            now = _generations(journal, spec)
            if len(now) != len(before):
                continue
            if not anew:
                yield _continued(journal, state_dir, (now[-1], spec, intent), lock)
                return
            if intent is Intent.FRESH:
                _keep_apart(state_dir, spec, before)
            yield _accepted(journal, state_dir, (new_id, spec), lock)
            return


def _keep_apart(state_dir: Path, spec: JobSpec, before: Sequence[JobRecord]) -> None:
    """Give what the job had written so far another name. Raises FreshImpossible."""
    for old in before[-1:]:
        outputs.save_memory(Settings.of(thaw(old.spec)).layout, state_dir, old.id)
    plan = train_of(spec)
    outputs.keep_apart(Settings.of(spec).layout, spec.folder, None if plan is None else plan.out)
    for old in before[-1:]:
        outputs.empty_memory(state_dir, old.id)


@contextmanager
def open_known(journal: Journal, state_dir: Path, known_id: str) -> Iterator[OpenJob]:
    """A job that was accepted earlier, under the spec that was frozen then.

    Raises:
        KeyError: there is no such job.
        AlreadyRunning, AlreadyDone, JournalError: as `open_job`.
    """
    record = journal.job(known_id)
    if record is None:
        raise KeyError(known_id)
    spec = thaw(record.spec)
    with _held(state_dir, record.id) as lock:
        record = journal.job(known_id) or record
        yield _continued(journal, state_dir, (record, spec, Intent.UNSAID), lock)


def requeue(journal: Journal, state_dir: Path, known_id: str, items: Sequence[int]) -> None:
    """Have these items of a batch job tried again by its next runner.

    Raises:
        KeyError: there is no such job.
        AlreadyRunning: a runner has it, and would not hear of this.
        JournalError: the state folder refuses.
    """
    if journal.job(known_id) is None:
        raise KeyError(known_id)
    with _held(state_dir, known_id):
        state = JobState()
        for event in journal.replay(known_id):
            state, _ = step(state, event, 0.0)
        asked = ItemsRequeued(tuple(items), "retry")
        state, _ = step(state, asked, 0.0)
        journal.append(known_id, asked, state)


def _generations(journal: Journal, spec: JobSpec) -> list[JobRecord]:
    """The jobs of this name and folder, oldest first: each fresh start makes one more."""
    known = (spec.name, str(spec.folder))
    return [one for one in journal.jobs() if (one.name, one.folder) == known]


@contextmanager
def _held(state_dir: Path, of_job: str) -> Iterator[Lock]:
    """The runner lock of a job held; yields the worker lock, not yet taken."""
    folder = JobFolder.of(state_dir, of_job)
    try:
        folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        runner_lock = hold_runner_lock(folder.runner_lock)
    except OSError as error:
        raise JournalUnavailable(
            f"the job's folder {folder.path} cannot be used: {error.strerror}. "
            "Check its free space and permissions, or name another folder with --state-dir."
        ) from error
    try:
        worker_lock = Lock(folder.worker_lock)
        try:
            yield worker_lock
        finally:
            worker_lock.close()
    finally:
        runner_lock.close()


def _accepted(
    journal: Journal, state_dir: Path, new: tuple[str, JobSpec], worker_lock: Lock
) -> OpenJob:
    new_id, spec = new
    now = time.time()
    record = JobRecord(
        id=new_id,
        name=spec.name,
        folder=str(spec.folder),
        spec=freeze(spec),
        created_s=now,
        updated_s=now,
        state=State.QUEUED,
        why="",
        step=None,
        total=None,
        runner_pid=None,
        runner_ticks=None,
        boot_id=None,
    )
    journal.create_job(record)
    return _open(journal, state_dir, (record, spec), worker_lock)


def _continued(
    journal: Journal, state_dir: Path, job: tuple[JobRecord, JobSpec, Intent], worker_lock: Lock
) -> OpenJob:
    record, spec, intent = job
    changes = differences(thaw(record.spec), spec)
    if changes and intent is Intent.UNSAID:
        raise SpecDiffers(record.id, changes)
    if record.state == State.SUCCEEDED and not changes and batch_of(spec) is None:
        raise AlreadyDone(record)  # a batch job may have new items
    if changes:
        state = JobState()
        for event in journal.replay(record.id):
            state, _ = step(state, event, 0.0)
        changed = SpecChanged(tuple(changes))
        state, _ = step(state, changed, 0.0)
        journal.append(record.id, changed, state, spec=freeze(spec))
    return _open(journal, state_dir, (record, spec), worker_lock)


def _open(
    journal: Journal, state_dir: Path, job: tuple[JobRecord, JobSpec], worker_lock: Lock
) -> OpenJob:
    record, spec = job
    return OpenJob(
        record=record,
        spec=spec,
        settings=Settings.of(spec),
        folder=JobFolder.of(state_dir, record.id),
        state_dir=state_dir,
        journal=journal,
        worker_lock=worker_lock,
    )
