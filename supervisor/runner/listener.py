"""What the runner tells to whoever watches it: a terminal, a log file, a test.

Owns the interface. A listener is told after the fact and can change nothing.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from supervisor.core.events import Event
from supervisor.core.state import JobState
from supervisor.watch.progress import Progress


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far the running attempt is. `rate` is in steps a second, `eta_s` in seconds."""

    attempt: int
    progress: Progress
    rate: float | None = None
    eta_s: float | None = None


@dataclass(frozen=True, slots=True)
class GpuUsage:
    """What the running attempt does on its GPUs: bytes on all of them, and their mean load.

    `utilization` is in percent. None where the driver does not say, or does not answer.
    """

    used_bytes: int | None = None
    utilization: float | None = None


class Listener(Protocol):
    """One who watches."""

    def saw(self, event: Event, state: JobState) -> None:
        """An event was journaled (or, if not durable, happened); `state` is the one after it."""

    def progressed(self, snapshot: Snapshot) -> None:
        """The worker said how far it is."""

    def gpus_used(self, usage: GpuUsage) -> None:
        """Its GPUs were looked at, as they are every few seconds."""

    def warned(self, text: str) -> None:
        """Something is wrong that ends nothing."""


class Audience:
    """Several listeners as one.

    One that can no longer be told (its pipe is closed, its disk is full) misses what it misses: a
    training does not end because nobody is looking.
    """

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def saw(self, event: Event, state: JobState) -> None:
        """Tell all."""
        for one in self._listeners:
            with suppress(OSError):
                one.saw(event, state)

    def progressed(self, snapshot: Snapshot) -> None:
        """Tell all."""
        for one in self._listeners:
            with suppress(OSError):
                one.progressed(snapshot)

    def gpus_used(self, usage: GpuUsage) -> None:
        """Tell all."""
        for one in self._listeners:
            with suppress(OSError):
                one.gpus_used(usage)

    def warned(self, text: str) -> None:
        """Tell all."""
        for one in self._listeners:
            with suppress(OSError):
                one.warned(text)
