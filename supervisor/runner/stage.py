"""What those who look at a worker need of the run that it belongs to.

Owns the interface. The loop of a job is one; each worker of a batch job has one of its own.
"""

from typing import Protocol

from supervisor.core.events import Event
from supervisor.core.state import JobState
from supervisor.runner.listener import Listener
from supervisor.runner.opening import OpenJob
from supervisor.runner.tasks import Tasks


class Stage(Protocol):
    """Where a worker's life takes place."""

    @property
    def job(self) -> OpenJob:
        """The job."""

    @property
    def listener(self) -> Listener:
        """Who watches."""

    @property
    def tasks(self) -> Tasks:
        """Where work is started."""

    @property
    def state(self) -> JobState:
        """The deadlines of the worker, and what they stand for."""

    @property
    def last_sign_at(self) -> float:
        """When the worker gave its last sign of progress."""

    def clock(self) -> float:
        """Seconds of a monotonic clock that stands still while this process does."""

    async def feed(self, event: Event) -> None:
        """Take in what was found."""
