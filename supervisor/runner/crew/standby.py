"""The worker after the next: started ahead, so that the death of one costs no start-up.

Owns launchers that wait, each with the channel and the control group of the worker that it will be.
Until then it guards the worker that it will replace. Invariant: one that was not needed is ended.
"""

import socket
from dataclasses import dataclass

from supervisor.process import Launcher
from supervisor.runner.isolation import Isolation, Waiting
from supervisor.runner.warmth import Warmth

SPARE_BYTES = 512 << 20  # of the host's memory, that a worker started ahead must leave


@dataclass(slots=True)
class Standby:
    """A launcher with all that its worker needs. `theirs` is the worker's end of the channel."""

    launcher: Launcher
    ours: socket.socket
    theirs: socket.socket
    waiting: Waiting

    def close(self) -> None:
        """It is not needed."""
        self.launcher.close()
        self.ours.close()
        self.theirs.close()


class Standbys:
    """At most one for each slot of a crew."""

    def __init__(self, warmth: Warmth, isolation: Isolation) -> None:
        self._warmth = warmth
        self._isolation = isolation
        self._waiting: dict[int, Standby] = {}
        self._closed = False

    def open(self) -> None:
        """A crew begins."""
        self._closed = False

    async def take(self, slot: int, serial: int, fds: tuple[int, ...]) -> Standby:
        """The one that waits for this slot, or a new one. Raises SpawnFailed."""
        found = self._waiting.pop(slot, None)
        if found is not None:
            if found.launcher.inherit_fds == (*fds, found.theirs.fileno()):
                return found
            self._drop(found)  # it was started before the job got other GPUs
        return await self._make(serial, fds)

    async def prepare(self, slot: int, serial: int, fds: tuple[int, ...]) -> Launcher | None:
        """Have one ready for a slot, if the host has memory to spare; what can guard till then.

        Raises SpawnFailed.
        """
        if slot not in self._waiting:
            if available_bytes() < SPARE_BYTES:
                return None
            made = await self._make(serial, fds)
            if self._closed or slot in self._waiting:  # somebody else was quicker
                self._drop(made)
            else:
                self._waiting[slot] = made
        return self._waiting[slot].launcher if slot in self._waiting else None

    def close(self) -> None:
        """The crew is at its end: nobody waits any more."""
        self._closed = True
        for one in self._waiting.values():
            self._drop(one)
        self._waiting.clear()

    async def _make(self, serial: int, fds: tuple[int, ...]) -> Standby:
        ours, theirs = socket.socketpair()
        try:
            launcher = await self._warmth.launcher(fds, theirs.fileno())
        except BaseException:
            ours.close()
            theirs.close()
            raise
        return Standby(launcher, ours, theirs, self._isolation.room_for(serial, launcher.pid))

    def _drop(self, one: Standby) -> None:
        one.close()
        self._isolation.discard(one.waiting)


def available_bytes() -> int:
    """What the kernel could give to a new process without swapping; proc_meminfo(5)."""
    with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123 - quicker than a Path
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return SPARE_BYTES
