"""Which cores a job uses, where job.yaml says how many.

Owns the choice. Cores are not fenced off: jobs of one host only avoid each other where there are
enough cores, by one lock file a core. Whoever finds all of them taken shares the first ones.
"""

import fcntl
import os
from contextlib import suppress

from supervisor.gpu.shared_folder import (
    READABLE,
    LeaseFolderUnusable,
    lease_folder,
    locked,
    look,
    opened,
)


class CpuShare:
    """The cores of one job, for as long as its runner lives."""

    def __init__(self, count: int | None) -> None:
        self._fds: list[int] = []
        self.numbers: tuple[int, ...] = ()
        allowed = sorted(os.sched_getaffinity(0))
        if count is not None and count < len(allowed):
            self.numbers = self._choose(count, allowed)

    def close(self) -> None:
        """Let others have them."""
        while self._fds:
            os.close(self._fds.pop())

    def _choose(self, count: int, allowed: list[int]) -> tuple[int, ...]:
        free: list[int] = []
        with suppress(OSError, LeaseFolderUnusable), opened(lease_folder(), make=True) as folder:
            for core in allowed:
                if len(free) < count and self._hold(folder, core):
                    free.append(core)
        shared = [core for core in allowed if core not in free]
        return tuple(sorted([*free, *shared[: count - len(free)]]))

    def _hold(self, folder: int, core: int) -> bool:
        with suppress(OSError):  # another user's, who lets nobody read it; or made just now
            fd = _open(folder, f"cpu-{core}.lock")
            if locked(fd, fcntl.LOCK_EX):
                self._fds.append(fd)
                return True
            os.close(fd)
        return False


def _open(folder: int, name: str) -> int:
    try:
        return look(folder, name)
    except FileNotFoundError:
        flags = os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=folder)
        os.fchmod(fd, READABLE)  # whatever the umask takes away
        return fd
