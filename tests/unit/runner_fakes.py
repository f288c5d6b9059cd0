"""What the parts of a runner are given in place of a loop: a clock, a state, and an ear.

Owns the fakes of the tests that look at one part alone. Nothing here decides anything.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from supervisor.core.causes import State
from supervisor.core.deadlines import Deadlines, Timeouts
from supervisor.core.events import Event
from supervisor.core.state import JobState
from supervisor.runner.listener import BatchSnapshot, GpuUsage, Snapshot
from supervisor.runner.tasks import Tasks
from supervisor.spec.resources import Resources


class FakeListener:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.usages: list[GpuUsage] = []
        self.batches: list[BatchSnapshot] = []

    def saw(self, event: Event, state: JobState) -> None:
        """Forget it: `FakeLoop.fed` has it."""

    def progressed(self, snapshot: Snapshot) -> None:
        """Forget it."""

    def batch_progressed(self, snapshot: BatchSnapshot) -> None:
        """Keep it."""
        self.batches.append(snapshot)

    def gpus_used(self, usage: GpuUsage) -> None:
        """Keep it."""
        self.usages.append(usage)

    def warned(self, text: str) -> None:
        """Keep it."""
        self.warnings.append(text)


class FakeLoop:
    """A loop whose clock the test moves, and which only notes what it is fed."""

    def __init__(self, signs: str = "heartbeat output checkpoint gpu cpu", **resources: Any):
        self.now = 1000.0
        self.last_sign_at = self.now
        self.state = JobState(phase=State.RUNNING, attempt=1, timeouts=Timeouts(heartbeat_s=8.0))
        settings = SimpleNamespace(
            signs=frozenset(signs.split()), resources=Resources.model_validate(resources)
        )
        self.job: Any = SimpleNamespace(settings=settings)
        self.listener = FakeListener()
        self.fed: list[Event] = []
        self.fed_one = asyncio.Event()
        self.tasks: Any = SimpleNamespace(start=self._start)

    def clock(self) -> float:
        """Seconds, as the test has set them."""
        return self.now

    def expects_a_sign_by(self, at: float) -> None:
        """Arm the heartbeat."""
        self.state = replace(self.state, deadlines=Deadlines(heartbeat=at))

    async def feed(self, event: Event) -> None:
        """Note it."""
        self.fed.append(event)
        self.fed_one.set()

    async def heard(self, kind: type[Event]) -> Any:
        """The first event of a kind, which must come soon."""
        async with asyncio.timeout(20):
            while not (found := [one for one in self.fed if isinstance(one, kind)]):
                self.fed_one.clear()
                await self.fed_one.wait()
        return found[0]

    def _start(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        return Tasks(asyncio.get_running_loop().create_future()).start(work)
