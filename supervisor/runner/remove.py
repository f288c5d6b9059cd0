"""Removes a job for good: its rows, its folder in the state folder, its snapshots in memory.

Owns the order, and what retention may remove. Never touches what the user's script wrote: its own
checkpoints and outputs stay. Invariant: from the mark on, the job is to go. A mark lies beside the
folder, durable before anything else happens; whoever meets one (a sweep, or who opens the job) goes
on from there, so that a crash leaves neither rows without their folder nor a folder that nobody
knows. Files go before rows: on a full disk it is they that make room for the rows' removal.
"""

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from supervisor.core.causes import State
from supervisor.host.durable import fsync_folder
from supervisor.journal import JobRecord, Journal
from supervisor.runner import outputs
from supervisor.runner.held import held
from supervisor.runner.home import REMOVING, JobFolder
from supervisor.runner.locks import AlreadyRunning, Lock

# A stopped job is one that somebody means to resume.
ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
_GARBAGE = ".removed-"
_BLOCK_BYTES = 512  # stat(2): the unit of st_blocks, whatever the file system's


class NotRemoved(Exception):
    """A job that could not be removed, or not wholly; the message says why and what to do."""


def remove(state_dir: Path, journal: Journal, job_id: str) -> None:
    """Remove a job that nobody runs.

    Raises:
        KeyError: there is no such job.
        AlreadyRunning: a runner has it.
        NotRemoved: its worker lives on without a runner, or a file cannot be deleted.
        JournalError: the state folder refuses; what was begun is finished by the next `sweep`.
    """
    folder = JobFolder.of(state_dir, job_id)
    if journal.job(job_id) is None and not is_begun(folder):
        raise KeyError(job_id)
    with held(folder) as worker_lock:
        _require_no_worker(job_id, worker_lock)
        try:
            folder.removal.touch(mode=0o600)
            fsync_folder(folder.removal.parent)
        except OSError as error:
            with suppress(OSError):  # a disk that became read-only, say
                folder.removal.unlink(missing_ok=True)
            raise _cannot(job_id, error) from error
        finish(state_dir, journal, job_id)


def is_begun(folder: JobFolder) -> bool:
    """Whether it was decided to remove the job of this folder."""
    return os.path.lexists(folder.removal)


def finish(state_dir: Path, journal: Journal, job_id: str) -> None:
    """Remove what is left of a job that is marked; for who holds its runner lock.

    That lock is then of a file without a name: whoever wants the job must take another.

    Raises:
        NotRemoved: a file cannot be deleted; the mark stays.
        JournalError: as `remove`.
    """
    folder = JobFolder.of(state_dir, job_id)
    try:
        _empty(folder)
        outputs.empty_memory(state_dir, job_id)
        journal.remove_job(job_id)
        garbage = folder.path.with_name(f"{_GARBAGE}{job_id}-{time.monotonic_ns()}")
        folder.path.rename(garbage)
        fsync_folder(garbage.parent)
        folder.removal.unlink(missing_ok=True)
    except OSError as error:
        raise _cannot(job_id, error) from error
    shutil.rmtree(garbage, ignore_errors=True)  # two locks; else a sweep's


def sweep(state_dir: Path, journal: Journal) -> list[str]:
    """Finish removals that a crash has broken off; the ids of those that are gone now.

    One that still cannot be finished is left for the next sweep.

    Raises:
        JournalError: the state folder refuses.
    """
    gone = []
    for name in _hidden(state_dir / "jobs"):
        if name.startswith(_GARBAGE):
            shutil.rmtree(state_dir / "jobs" / name, ignore_errors=True)
        elif name.startswith(REMOVING):
            job_id = name.removeprefix(REMOVING)
            with suppress(AlreadyRunning, NotRemoved):
                _go_on(state_dir, journal, job_id)
                gone.append(job_id)
    return gone


def old(
    journal: Journal, older_than_s: float | None, keep_bytes: int | None, now_s: float
) -> list[str]:
    """The jobs that retention removes, oldest first; only ended ones.

    Those that nothing was heard of for `older_than_s` seconds before `now_s` (epoch seconds), and
    as many more as it takes until the folders of all jobs have no more than `keep_bytes`. None is
    no bound. The size is what the disk gives for them.

    Raises:
        JournalError: the journal cannot be read.
    """
    jobs = journal.jobs()
    ended = sorted((one for one in jobs if one.state in ENDED), key=lambda one: one.updated_s)
    leaving = [] if older_than_s is None else _older(ended, now_s - older_than_s)
    if keep_bytes is not None:
        state_dir = journal.path.parent
        sizes = {one.id: size_bytes(JobFolder.of(state_dir, one.id).path) for one in jobs}
        left = sum(sizes.values()) - sum(sizes[job_id] for job_id in leaving)
        for one in ended[len(leaving) :]:
            if left <= keep_bytes:
                break
            leaving.append(one.id)
            left -= sizes[one.id]
    return leaving


def size_bytes(folder: Path) -> int:
    """What the disk holds for a folder: blocks, each file once; 0 for what is not there."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for path, _, names in os.walk(folder):
        for name in (".", *names):
            with suppress(OSError):  # it went meanwhile
                status = (Path(path) / name).lstat()
                if (status.st_dev, status.st_ino) not in seen:
                    seen.add((status.st_dev, status.st_ino))
                    total += status.st_blocks * _BLOCK_BYTES
    return total


def _older(ended: list[JobRecord], than_s: float) -> list[str]:
    return [one.id for one in ended if one.updated_s < than_s]


def _go_on(state_dir: Path, journal: Journal, job_id: str) -> None:
    folder = JobFolder.of(state_dir, job_id)
    with held(folder) as worker_lock:
        _require_no_worker(job_id, worker_lock)
        if is_begun(folder):  # else somebody else was quicker
            finish(state_dir, journal, job_id)


def _require_no_worker(job_id: str, worker_lock: Lock) -> None:
    if not worker_lock.try_hold():
        raise NotRemoved(
            f"{job_id} has no runner, but its worker still lives. End it: `supervise cancel "
            f"{job_id}`. Then remove the job."
        )


def _empty(folder: JobFolder) -> None:
    """Delete all of the folder but the two locks that are held."""
    locks = {folder.runner_lock.name, folder.worker_lock.name}
    for entry in list(os.scandir(folder.path)):
        if entry.name in locks:
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            Path(entry.path).unlink(missing_ok=True)


def _cannot(job_id: str, error: OSError) -> NotRemoved:
    where = f"{error.filename}: " if error.filename else ""
    return NotRemoved(
        f"{job_id} cannot be removed wholly: {where}{error.strerror}. Check permissions and the "
        "disk, then remove it again."
    )


def _hidden(jobs: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(jobs) if entry.name.startswith(".")]
    except OSError:  # no job ever ran
        return []
