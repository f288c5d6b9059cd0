"""Who starts next: the plan of the queue, carried out when something changes.

Owns when it is planned, and the commit of a placement; the order is `queue.plan`'s, the launch is
the dispatcher's. Invariant: a job is launched only after its placement is in the queue.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

from supervisor.core.causes import State
from supervisor.daemon.contracts import Refusal
from supervisor.daemon.gpus import GpuDesk
from supervisor.daemon.roster import Roster
from supervisor.host import identity
from supervisor.host.lean import structlog
from supervisor.queue.model import Entry, Phase
from supervisor.queue.plan import Capacity, Situation, Start, plan

LOOK_AGAIN_S = 2.0  # at what others do with the GPUs, while somebody waits for one
AGE_S = 60.0  # waiting jobs rise with time
FAULT_S = 5.0
RESTS = 5  # times as long as it took, a plan is not made anew, unless a place was freed

Launched = Callable[[Entry, tuple[str, ...]], None]


class Placing:
    """Places jobs. `waits` says of every other one, in order of turn, what it waits for.

    `turns` counts the plans that were made.
    """

    def __init__(
        self, roster: Roster, gpus: GpuDesk, capacity: Capacity, launched: Launched
    ) -> None:
        self.waits: Mapping[str, str] = {}
        self.turns = 0
        self.leaving = False
        self._capacity = capacity
        self._gpus = gpus
        self._launched = launched
        self._roster = roster
        self._boot = identity.boot_id()
        self._due, self._freed = asyncio.Event(), asyncio.Event()
        self._log = structlog.get_logger()

    def nudge(self, *, freed: bool = False) -> None:
        """Something changed: look whether anybody may start. `freed`: a place, so look at once."""
        self._due.set()
        if freed:
            self._freed.set()

    async def run(self) -> None:
        """Place jobs until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._due.clear()
            self._freed.clear()
            began = loop.time()
            try:
                await self._turn()
            except Exception:  # noqa: BLE001 - a fault of ours must not end the queue of all
                self._log.exception("fault", what="placing")
                await asyncio.sleep(FAULT_S)
                self._due.set()
            took_s = loop.time() - began
            await _waited(self._due, self._patience_s())
            # A plan of thousands takes its time; thousands of submissions are not one plan each.
            await _waited(self._freed, took_s * RESTS)

    def _patience_s(self) -> float | None:
        waiting = self._roster.of(Phase.WAITING)
        if not waiting:
            return None
        return LOOK_AGAIN_S if any(one.needs.gpus for one in waiting) else AGE_S

    async def _turn(self) -> None:
        if self.leaving:
            return
        if any(one.needs.gpus for one in self._roster.of(Phase.WAITING)):
            await self._gpus.look()  # which takes its time: the queue is read after it
        waiting = [
            one for one in self._roster.of(Phase.WAITING) if not self._roster.is_held(one.id)
        ]
        started = self._roster.of(Phase.STARTED)
        situation = Situation(
            waiting=waiting,
            started=started,
            states=self._states(waiting),
            held_groups=self._roster.held_groups(),
            failures=self._roster.failures(),
            capacity=self._capacity,
            now_s=time.time(),
        )
        found = plan(situation, self._gpus.taker(started))
        self.waits = found.waits
        self.turns += 1
        try:
            self._place(found.starts)
        except Refusal as error:  # the disk refuses: nothing was promised, nobody starts
            self._log.warning("not placed", why=str(error))

    def _states(self, waiting: list[Entry]) -> dict[str, State]:
        """The final states of the jobs that others wait for."""
        named = {one for entry in waiting for one in entry.after}
        found = (self._roster.get(one) for one in named)
        return {one.id: one.state for one in found if one and one.phase is Phase.ENDED}

    def _place(self, starts: tuple[Start, ...]) -> None:
        now = time.time()
        placed: list[tuple[Entry, tuple[str, ...]]] = []
        for start in starts:
            entry = self._roster.get(start.id)
            if entry is None or entry.phase is not Phase.WAITING:
                continue
            entry = replace(
                entry,
                phase=Phase.STARTED,
                placed_s=now,
                launches=entry.launches + 1,
                boot_id=self._boot,
            )
            placed.append((entry, start.gpus))
        self._roster.change_all([(one, "Placed", {"gpus": list(gpus)}) for one, gpus in placed])
        for entry, gpus in placed:
            self._gpus.placed(entry.id, entry.needs, gpus)
            self._launched(entry, gpus)


async def _waited(event: asyncio.Event, limit_s: float | None) -> None:
    """Wait until something happens, or the time is over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await event.wait()
