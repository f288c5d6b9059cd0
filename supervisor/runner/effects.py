"""Carries out the effects that `core.step` asks for.

Owns what lives as long as the run: GPUs, disks, isolation, checkpoints. Each effect is one task;
when it is done it feeds the event that tells so. The running attempt is `attempt.py`'s. Decides
nothing.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from supervisor.checkpoint import CheckpointError, DiskFull
from supervisor.core.causes import Cause, State
from supervisor.core.effects import (
    ChooseCheckpoint,
    ConcludeAttempt,
    Effect,
    EndRun,
    KillWorker,
    LeaseGpus,
    ReclaimWorker,
    SetGpusAside,
    SpawnAttempt,
    StopWorker,
    WaitBackoff,
    WaitForSpace,
)
from supervisor.core.events import (
    BackoffElapsed,
    CheckpointChosen,
    HoldRequired,
    SpaceReturned,
)
from supervisor.core.item_events import ItemsPlanned
from supervisor.process.orphans import become_subreaper
from supervisor.runner import locks
from supervisor.runner.attempt import Attempt, Tools
from supervisor.runner.checkpoints import Checkpoints
from supervisor.runner.disk import DiskThread
from supervisor.runner.gather import Circumstances
from supervisor.runner.gpus import Gpus
from supervisor.runner.isolation import Isolation
from supervisor.runner.loop import Loop
from supervisor.runner.outfit import Outfit
from supervisor.runner.settings import BatchSettings
from supervisor.runner.space import Disks
from supervisor.runner.warmth import Warmth
from supervisor.runner.worker import Workers

if TYPE_CHECKING:
    from supervisor.runner.crew.crew import Crew
    from supervisor.runner.crew.planning import Planning

FULL_ERRNOS = {28, 122}  # ENOSPC EDQUOT
SETTING_ASIDE_S = 10.0


class Effects:
    """One job's effects, carried out beside the loop."""

    def __init__(self, loop: Loop, *, keep_scratch: bool = False) -> None:
        self.loop = loop
        self.job = loop.job
        self.disk = DiskThread()
        self.checkpoints = Checkpoints(loop.job, self.disk)
        self.gpus = Gpus(loop.job, loop.feed, loop.clock)
        self.disks = Disks(loop.job, loop.listener.warned)
        self.isolation = Isolation(loop.job, loop.listener.warned)
        self.warmth = Warmth(loop.job, self.gpus, self.isolation, loop.listener.warned)
        self.outfit = Outfit(loop.job, loop.listener.warned, keep_scratch=keep_scratch)
        self.workers = Workers(loop.job, self.gpus, self.warmth, self.outfit)
        self.planning: Planning | None = None
        self._setting_aside: set[asyncio.Task[None]] = set()
        self._close_crew: Callable[[], None] = lambda: None
        batch = loop.job.settings.batch
        self.attempt = self._attempt() if batch is None else self._crew(batch)
        loop.perform = self.perform
        loop.worker_lives = lambda: self.attempt.lives
        loop.look = self.attempt.look
        loop.judge = self.attempt.judge

    def _attempt(self) -> Attempt:
        self.gpus.before_release = self.workers.close
        tools = Tools(
            self.checkpoints, self.gpus, self.isolation, self.workers, self.disks, self.outfit
        )
        return Attempt(self.loop, tools)

    def _crew(self, batch: BatchSettings) -> "Crew":
        # A runner of one training is to stay small: it needs none of this.
        from supervisor.runner.crew.crew import Crew  # noqa: PLC0415 - see above
        from supervisor.runner.crew.planning import Planning  # noqa: PLC0415 - see above
        from supervisor.runner.crew.tools import CrewTools, Host  # noqa: PLC0415 - see above

        host = Host(self.gpus, self.isolation, self.disks, self.warmth, self.disk)
        tools = CrewTools(self.loop, batch, host)
        self.gpus.before_release = tools.release
        self.planning = Planning(self.job, tools)
        self._close_crew = tools.close
        return Crew(self.loop, tools)

    def begin(self) -> None:
        """Prepare this process: it inherits what its workers leave, and dies last."""
        become_subreaper()
        self.isolation.protect_runner()
        self.outfit.begin()
        self.loop.tasks.start(self.loop.spare("watching disk space", self.disks.watch()))

    def perform(self, effect: Effect) -> None:
        """Start carrying out one effect."""
        task = self.loop.tasks.start(_TABLE[type(effect)](self, effect))
        if isinstance(effect, SetGpusAside):
            self._setting_aside.add(task)

    async def close(self) -> None:
        """Let go of what was started ahead, and of what is held."""
        self._close_crew()
        self.workers.close()
        await self.warmth.close()
        self.disk.close()
        self.disks.close()
        self.isolation.close()
        await self.gpus.close()

    async def lease(self, effect: LeaseGpus) -> None:
        """Get the GPUs of the next attempt, once nothing of an earlier runner's is left on them."""
        if not await self._held_for_survivors():
            await self.gpus.lease(effect)

    async def set_aside(self, effect: SetGpusAside) -> None:
        """Keep everybody from a GPU."""
        await self.gpus.set_aside(effect)

    async def end(self, effect: EndRun) -> None:
        """Leave, when what others must know of the GPUs is written down, or a disk hangs."""
        if self._setting_aside:
            await asyncio.wait(self._setting_aside, timeout=SETTING_ASIDE_S)
        await self._put_away(effect.state)
        if not self.loop.result.done():
            self.loop.result.set_result(effect.state)

    async def _put_away(self, state: State) -> None:
        """Tidy up. Who insists on the end need not wait for a dead disk."""
        tidying = self.loop.tasks.start(self.outfit.put_away(state, self.disk))
        insisted = self.loop.tasks.start(self.loop.forced.wait())
        await asyncio.wait({tidying, insisted}, return_when=asyncio.FIRST_COMPLETED)
        insisted.cancel()

    async def reclaim(self, effect: ReclaimWorker) -> None:
        """A runner died: end what is left of its worker, then conclude the attempt."""
        left = await self._own_worker_lock()
        around = Circumstances(lost=True, rebooted=effect.rebooted, survivors=left)
        await self.attempt.conclude_lost(around)

    async def choose(self, effect: ChooseCheckpoint) -> None:
        """Find what the next attempt starts from."""
        if await self._held_for_survivors():
            return
        if self.planning is not None:
            await self._plan(self.planning)
            return
        try:
            events = await self.checkpoints.choose(effect.below)
        except (CheckpointError, OSError) as error:  # OSError: the pointer file, for example
            full = isinstance(error, DiskFull) or getattr(error, "errno", 0) in FULL_ERRNOS
            cause = Cause.DISK_FULL if full else Cause.BAD_CHECKPOINT
            events = (HoldRequired(cause, str(error)),)
        for event in events:
            await self.loop.feed(event)

    async def _plan(self, planning: "Planning") -> None:
        """A batch job starts from its items: those that are done need no checkpoint."""
        found = await planning.plan()
        if isinstance(found, ItemsPlanned) and not found.left:
            await planning.publish()  # a runner may have died before it could
        if found is not None:
            await self.loop.feed(found)
        await self.loop.feed(CheckpointChosen(None, None))

    async def spawn(self, effect: SpawnAttempt) -> None:
        """Start the worker, watch it, and see it out."""
        self.warmth.take_time()
        await self.attempt.live(effect)

    async def stop(self, _effect: StopWorker) -> None:
        """Ask the worker to stop."""
        self.warmth.hurry()
        await self.attempt.stop()

    async def kill(self, effect: KillWorker) -> None:
        """End the whole tree at once."""
        self.warmth.hurry()
        await self.attempt.kill(capture=effect.capture_stacks)

    async def conclude(self, _effect: ConcludeAttempt) -> None:
        """The main process ended: see the tree out, then find the cause and decide."""
        await self.attempt.conclude()

    async def wait(self, effect: WaitBackoff) -> None:
        """Wait until the next attempt is due."""
        await asyncio.sleep(effect.delay_s)
        await self.loop.feed(BackoffElapsed())

    async def wait_for_space(self, _effect: WaitForSpace) -> None:
        """Wait until the disks have room; meanwhile others may have the GPUs."""
        self.gpus.release()
        await self.disks.wait_for_room()
        await self.loop.feed(SpaceReturned())

    async def _held_for_survivors(self) -> bool:
        """Make sure that no process of an earlier attempt lives; else hold the job."""
        left = await self._own_worker_lock()
        if not left:
            return False
        pids = ", ".join(map(str, left))
        reason = f"process {pids} of an earlier attempt does not end"
        await self.loop.feed(HoldRequired(Cause.UNKILLABLE, reason))
        return True

    async def _own_worker_lock(self) -> tuple[int, ...]:
        """Take the worker lock, ending what an earlier runner left; the pids that do not end."""
        if self.job.worker_lock.held:
            return ()
        left = await self.isolation.reclaim(self.loop.clock)
        return left or await locks.reclaim_worker_lock(self.job.worker_lock, self.loop.clock)


_TABLE: dict[type[Effect], Callable[[Effects, Any], Coroutine[Any, Any, None]]] = {
    LeaseGpus: Effects.lease,
    SetGpusAside: Effects.set_aside,
    ReclaimWorker: Effects.reclaim,
    ChooseCheckpoint: Effects.choose,
    SpawnAttempt: Effects.spawn,
    StopWorker: Effects.stop,
    KillWorker: Effects.kill,
    ConcludeAttempt: Effects.conclude,
    WaitBackoff: Effects.wait,
    WaitForSpace: Effects.wait_for_space,
    EndRun: Effects.end,
}
