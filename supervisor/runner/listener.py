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


@dataclass(frozen=True, slots=True)
class BatchSnapshot:
    """How far a batch job is: counts of items, of all its attempts together.

    `suspects` are to be tried alone. The leaks are bytes that one item leaves behind in a worker,
    on the host and on its GPUs; `gpu_bytes` is what all workers use together. `chunk` is how many
    items a worker is handed now. None where nothing is known yet.
    """

    attempt: int
    total: int
    done: int
    quarantined: int = 0
    suspects: int = 0
    workers: int = 0
    items_per_s: float | None = None
    eta_s: float | None = None
    host_leak_bytes: float | None = None
    gpu_leak_bytes: float | None = None
    gpu_bytes: int | None = None
    chunk: int = 1


class Listener(Protocol):
    """One who watches."""

    def saw(self, event: Event, state: JobState) -> None:
        """An event was journaled (or, if not durable, happened); `state` is the one after it."""

    def progressed(self, snapshot: Snapshot) -> None:
        """The worker said how far it is."""

    def batch_progressed(self, snapshot: BatchSnapshot) -> None:
        """Items of a batch job were finished, or set aside."""

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

    def batch_progressed(self, snapshot: BatchSnapshot) -> None:
        """Tell all."""
        for one in self._listeners:
            with suppress(OSError):
                one.batch_progressed(snapshot)

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
