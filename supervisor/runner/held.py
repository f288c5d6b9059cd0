"""A job in one pair of hands: the runner lock, held for as long as a block lasts.

Owns the job's folder coming to be, and who may change the job; changes nothing itself. Invariant:
the lock that is held is the file that the next one will open, also after a folder was put away.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from supervisor.journal import JournalUnavailable
from supervisor.runner.home import JobFolder
from supervisor.runner.locks import Lock, hold_runner_lock


@contextmanager
def held(folder: JobFolder) -> Iterator[Lock]:
    """The runner lock of a job held; yields the worker lock, not yet taken.

    Raises:
        AlreadyRunning: another process has the job.
        JournalUnavailable: its folder cannot be made or written.
    """
    try:
        runner_lock = _runner_lock(folder)
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


def _runner_lock(folder: JobFolder) -> Lock:
    while True:
        folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            lock = hold_runner_lock(folder.runner_lock)
        except FileNotFoundError:  # the folder of a removed job was put away a moment ago
            continue
        if _is_the_one(lock):
            return lock
        lock.close()


def _is_the_one(lock: Lock) -> bool:
    """Whether it still has its name: a removed job's folder is put away with the lock in it."""
    try:
        return os.path.samestat(os.fstat(lock.fd), lock.path.stat())
    except FileNotFoundError:
        return False
