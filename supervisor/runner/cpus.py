"""Which cores a job uses, where job.yaml says how many.

Owns the choice. Cores are not fenced off: jobs of one host only avoid each other where there are
enough cores, by one lock file a core. Whoever finds all of them taken shares the first ones.
"""

import fcntl
import os
from contextlib import suppress

from supervisor.gpu.shared_folder import lease_folder


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
        for core in allowed:
            if len(free) == count:
                break
            if self._hold(core):
                free.append(core)
        shared = [core for core in allowed if core not in free]
        return tuple(sorted([*free, *shared[: count - len(free)]]))

    def _hold(self, core: int) -> bool:
        with suppress(OSError):
            path = lease_folder() / f"cpu-{core}.lock"
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                flags = os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                fd = os.open(path, flags, 0o644)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(fd)
                return False
            self._fds.append(fd)
            return True
        return False
