"""The GPUs of the live view, asked about beside it.

Owns a thread with a probe. Never keeps the view waiting: it gets the last answer, and how old it
is. Invariant: the probe is ended with the view, also while the driver hangs.
"""

import asyncio
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from supervisor.gpu.model import Inventory, Reading
from supervisor.gpu.probe import Probe, ProbeFailed, ProbeHung

EVERY_S = 1.5
TIMEOUT_S = 5.0
LEAVE_S = 4.0  # the probe has a second to leave and two to be killed


@dataclass(frozen=True, slots=True)
class GpuView:
    """The GPUs as last seen, at `at_s` of the monotonic clock; `problem` came since then."""

    inventory: Inventory
    readings: tuple[Reading, ...] = ()
    at_s: float = 0.0
    problem: str = ""

    def reading(self, uuid: str) -> Reading | None:
        """What was read of one of them."""
        return next((one for one in self.readings if one.uuid == uuid), None)


NOTHING_YET = GpuView(Inventory("", ()), at_s=float("inf"))


class GpuFeed:
    """Asks about the GPUs for as long as it is entered; `latest` never waits."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        self.latest = NOTHING_YET
        self._every_s = every_s
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self._ask())
        self._thread = threading.Thread(target=self._work, name="gpus", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(LEAVE_S)

    def _work(self) -> None:
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)
        self._loop.close()

    async def _ask(self) -> None:
        probe = Probe(TIMEOUT_S)
        try:
            while await self._look(probe):  # noqa: ASYNC110 -- time passes, nobody tells
                await asyncio.sleep(self._every_s)
        finally:
            await probe.close()

    async def _look(self, probe: Probe) -> bool:
        """Ask once; whether it is worth asking again."""
        inventory = self.latest.inventory
        try:
            if not inventory.gpus:
                inventory = await probe.inventory()
            readings = await probe.read_each(one.uuid for one in inventory.gpus)
        except (ProbeHung, ProbeFailed) as error:
            before = self.latest
            self.latest = GpuView(before.inventory, before.readings, before.at_s, str(error))
            return True
        self.latest = GpuView(inventory, readings, time.monotonic(), inventory.problem or "")
        return bool(inventory.gpus)
