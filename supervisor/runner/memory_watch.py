"""Keeps a worker's tree below `resources.memory` where the kernel does not do it.

Owns the sampling. Resident memory is cheap to read but counts what processes share once for each of
them (forked data loaders share nearly all); so above the limit the exact figure is asked for, and
only that one kills.
"""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from supervisor.core.events import LimitExceeded
from supervisor.core.evidence import Breach, Limit
from supervisor.runner.stage import Stage

LOOK_S = 1.0


class MemoryWatch:
    """Looks at one attempt until it is cancelled."""

    def __init__(
        self, loop: Stage, number: int, pids: Callable[[], Iterable[int]], limit_bytes: int
    ) -> None:
        self._loop = loop
        self._number = number
        self._pids = pids
        self._limit_bytes = limit_bytes

    async def run(self) -> None:
        """Look again and again, until it has used too much: that ends the attempt."""
        while True:
            used = used_bytes(self._pids(), self._limit_bytes)
            if used > self._limit_bytes:
                breach = Breach(Limit.MEMORY, used, self._limit_bytes)
                await self._loop.feed(LimitExceeded(self._number, breach))
                return
            await asyncio.sleep(LOOK_S)


def used_bytes(pids: Iterable[int], limit_bytes: int) -> int:
    """Memory of these processes: an upper bound while that is below the limit, exact above it."""
    import psutil  # noqa: PLC0415 - 1 MB and 7 ms that only a limit without a control group is worth

    found = []
    for pid in pids:
        with suppress(psutil.Error):
            found.append(psutil.Process(pid))
    total = 0
    for one in found:
        with suppress(psutil.Error):
            total += one.memory_info().rss
    if total <= limit_bytes:
        return total
    exact = [_proportional_bytes(one.pid) for one in found]
    return sum(exact)


def _proportional_bytes(pid: int) -> int:
    """Pss of a process: what it shares is divided by the number of those who share it.

    psutil reads the same from a file per mapping, which takes a hundred times as long.
    """
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return 0
