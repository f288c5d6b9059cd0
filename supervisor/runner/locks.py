"""The two locks that make "never two at once" true.

Owns taking them. Both are flock(2) locks: they belong to the open file, so a lock that children
inherited is free only when the last of them is gone, whatever killed whom. The kernel releases
them; nothing is ever stale.
"""

import asyncio
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from supervisor.host import identity

LOOK_AGAIN_S = 0.02
DYING_S = 1.0  # a tree whose runner died is given this long to finish dying by itself
RECLAIM_S = 30.0


class AlreadyRunning(Exception):
    """Another runner holds the job. `pid` is its process, where that could be seen."""

    def __init__(self, pid: int | None) -> None:
        super().__init__(f"the job is already running (runner: process {pid or 'unknown'})")
        self.pid = pid


class Lock:
    """An exclusive flock on a file; `fd` may be handed to children, who then hold it too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.held = False
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def try_hold(self) -> bool:
        """Take it if it is free. True when it is ours."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self.held = True
        return True

    def close(self) -> None:
        """Let go of it here; children that inherited it keep it."""
        os.close(self.fd)


def hold_runner_lock(path: Path) -> Lock:
    """Become the job's runner.

    Raises:
        AlreadyRunning: another process is.
    """
    lock = Lock(path)
    if not lock.try_hold():
        found = identity.holders(path)
        lock.close()
        raise AlreadyRunning(found[0] if found else None)
    return lock


async def reclaim_worker_lock(
    lock: Lock, clock: Callable[[], float], limit_s: float = RECLAIM_S
) -> tuple[int, ...]:
    """Take the worker lock, ending what is left of an earlier tree; () when it is ours.

    Only processes that hold this very lock are killed: having it open proves that they are of the
    job's worker tree. What could not be ended within the limit is returned.
    """
    started = clock()
    while not lock.try_hold():
        waited_s = clock() - started
        left = identity.holders(lock.path)
        if waited_s > limit_s:
            return tuple(left) or (0,)
        if waited_s > DYING_S:
            for pid in left:
                identity.kill_holder(pid, lock.path)
        await asyncio.sleep(LOOK_AGAIN_S)
    return ()
