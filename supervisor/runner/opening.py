"""Takes a job in hand: finds it again, or accepts it, and becomes its runner.

Owns the meaning of "the same command". A job is known by its name and folder. Nothing is changed
before the runner lock is held.
"""

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from supervisor.core.causes import State
from supervisor.core.events import Event, SpecChanged
from supervisor.core.item_events import ItemsRequeued
from supervisor.core.machine import step
from supervisor.core.state import JobState
from supervisor.journal import JobRecord, Journal
from supervisor.runner import outputs, remove
from supervisor.runner.held import held
from supervisor.runner.home import JobFolder
from supervisor.runner.locks import Lock
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


class CancelledForGood(Exception):
    """Its owner ended the job; nothing leads out of that but a fresh start."""

    def __init__(self, record: JobRecord) -> None:
        super().__init__(f"{record.id} was cancelled for good")
        self.record = record


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job in the hands of its runner. `prefer` are the GPUs that it was placed on, if any."""

    record: JobRecord
    spec: JobSpec
    settings: Settings
    folder: JobFolder
    state_dir: Path
    journal: Journal
    worker_lock: Lock
    prefer: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The job's id."""
        return self.record.id


def job_id(name: str, folder: str, generation: int = 1) -> str:
    """Name, a few digits that stand for the folder, and which fresh start it is."""
    digits = hashlib.sha256(folder.encode()).hexdigest()[:ID_HASH_DIGITS]
    return f"{name}-{digits}" + (f"-{generation}" if generation > 1 else "")


def next_generation(taken: Iterable[str], name: str, folder: str) -> int:
    """Which fresh start comes next, where these ids (of any jobs) are taken: one beyond them all.

    Removed jobs leave gaps, which are never filled while a later one is there.
    """
    first = job_id(name, folder)
    found = [0]
    for one in taken:
        number = one.removeprefix(f"{first}-")
        if one == first:
            found.append(1)
        elif number != one and number.isdecimal():
            found.append(int(number))
    return max(found) + 1


@contextmanager
def open_job(
    journal: Journal, state_dir: Path, spec: JobSpec, intent: Intent = Intent.UNSAID
) -> Iterator[OpenJob]:
    """The job of this job.yaml, new or continued, for as long as the block lasts.

    Raises:
        AlreadyRunning: another runner has it.
        AlreadyDone: it succeeded earlier and no fresh start was asked for.
        CancelledForGood: it was cancelled, and no fresh start was asked for.
        SpecDiffers: job.yaml changed and nobody said whether to continue or to start afresh.
        NotRemoved: its removal was begun, and cannot be finished.
        JournalError: the state folder refuses.
    """
    while True:
        before = _generations(journal, spec)
        anew = not before or intent is Intent.FRESH
        known = (spec.name, str(spec.folder))
        new_id = job_id(*known, next_generation((one.id for one in before), *known))
        # Also for a fresh start: the old job must not run while its outputs are moved.
        wanted = [one.id for one in before[-1:]] + ([new_id] if anew else [])
        with ExitStack() as locks:
            folders = [JobFolder.of(state_dir, one) for one in wanted]
            lock = [locks.enter_context(held(one)) for one in folders][-1]
            if _removals_finished(state_dir, journal, wanted):
                continue
            # Read again: until the locks were ours, another runner may have moved things on.
            now = _generations(journal, spec)
            if [one.id for one in now] != [one.id for one in before]:
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


def _removals_finished(state_dir: Path, journal: Journal, held_ids: Sequence[str]) -> bool:
    """Finish what a killed removal has begun; whether there was any. Raises NotRemoved."""
    begun = [one for one in held_ids if remove.is_begun(JobFolder.of(state_dir, one))]
    for one in begun:
        remove.finish(state_dir, journal, one)
    return bool(begun)


@contextmanager
def open_known(
    journal: Journal, state_dir: Path, known_id: str, prefer: tuple[str, ...] = ()
) -> Iterator[OpenJob]:
    """A job that was accepted earlier, under the spec that was frozen then.

    `prefer` are GPUs that its first attempt gets if they are free.

    Raises:
        KeyError: there is no such job.
        AlreadyRunning, AlreadyDone, CancelledForGood, NotRemoved, JournalError: as `open_job`.
    """
    with _held_known(journal, state_dir, known_id) as (record, lock):
        job = _continued(journal, state_dir, (record, thaw(record.spec), Intent.UNSAID), lock)
        yield replace(job, prefer=prefer)


@contextmanager
def _held_known(
    journal: Journal, state_dir: Path, known_id: str
) -> Iterator[tuple[JobRecord, Lock]]:
    if journal.job(known_id) is None:
        raise KeyError(known_id)
    with held(JobFolder.of(state_dir, known_id)) as lock:
        _removals_finished(state_dir, journal, [known_id])
        record = journal.job(known_id)
        if record is None:
            raise KeyError(known_id)
        yield record, lock


def requeue(journal: Journal, state_dir: Path, known_id: str, items: Sequence[int]) -> None:
    """Have these items of a batch job tried again by its next runner.

    Raises:
        KeyError: there is no such job.
        AlreadyRunning: a runner has it, and would not hear of this.
        CancelledForGood, NotRemoved, JournalError: as `open_job`.
    """
    with _held_known(journal, state_dir, known_id) as (record, _):
        _require_not_cancelled(record)
        append_fact(journal, known_id, ItemsRequeued(tuple(items), "retry"))


def replayed(journal: Journal, of_job: str) -> JobState:
    """Where a job is that nobody runs. Raises JournalError."""
    state = JobState()
    for event in journal.replay(of_job):
        state, _ = step(state, event, 0.0)
    return state


def append_fact(journal: Journal, of_job: str, fact: Event, spec: str | None = None) -> None:
    """Append an event to a job that nobody runs; for who holds its runner lock.

    Raises:
        IllegalEvent: it cannot happen to a job in that state; nothing has changed.
        JournalError: the state folder refuses.
    """
    state, _ = step(replayed(journal, of_job), fact, 0.0)
    journal.append(of_job, fact, state, spec=spec)


def _generations(journal: Journal, spec: JobSpec) -> list[JobRecord]:
    """The jobs of this name and folder, oldest first: each fresh start makes one more."""
    known = (spec.name, str(spec.folder))
    return [one for one in journal.jobs() if (one.name, one.folder) == known]


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
    _require_not_cancelled(record)
    changes = differences(thaw(record.spec), spec)
    if changes and intent is Intent.UNSAID:
        raise SpecDiffers(record.id, changes)
    if record.state == State.SUCCEEDED and not changes and batch_of(spec) is None:
        raise AlreadyDone(record)  # a batch job may have new items
    if changes:
        append_fact(journal, record.id, SpecChanged(tuple(changes)), freeze(spec))
    return _open(journal, state_dir, (record, spec), worker_lock)


def _require_not_cancelled(record: JobRecord) -> None:
    if record.state == State.CANCELLED:
        raise CancelledForGood(record)


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
