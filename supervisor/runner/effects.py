"""Carries out the effects that `core.step` asks for.

Owns the worker of the running attempt and the work around it. Each effect is one task; when it is
done it feeds the event that tells so. Decides nothing.
"""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any

from supervisor.checkpoint import CheckpointError, DiskFull
from supervisor.core.causes import Cause
from supervisor.core.conclude import Moment, conclude
from supervisor.core.effects import (
    ChooseCheckpoint,
    ConcludeAttempt,
    Effect,
    EndRun,
    KillWorker,
    ReclaimWorker,
    SpawnAttempt,
    StopWorker,
    WaitBackoff,
)
from supervisor.core.events import AttemptSpawned, BackoffElapsed, HoldRequired, WorkerExited
from supervisor.core.evidence import SpawnError
from supervisor.process import ChildUnkillable, SpawnFailed
from supervisor.runner import host, locks
from supervisor.runner.checkpoints import Checkpoints
from supervisor.runner.disk import DiskThread
from supervisor.runner.gather import Circumstances, gather, write_evidence
from supervisor.runner.loop import Loop
from supervisor.runner.observe import Observer
from supervisor.runner.worker import LiveWorker, Workers

# errno values after which the very same spawn may work a moment later
PASSING_ERRNOS = {11, 12, 23, 24, 26, 28}  # EAGAIN ENOMEM ENFILE EMFILE ETXTBSY ENOSPC
FULL_ERRNOS = {28, 122}  # ENOSPC EDQUOT

AHEAD_AFTER_S = 0.2  # two interpreters that start at once slow each other down


class Effects:
    """One job's effects, carried out beside the loop."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.job = loop.job
        self.disk = DiskThread()
        self.checkpoints = Checkpoints(loop.job, self.disk)
        self.workers = Workers(loop.job)
        self.live: LiveWorker | None = None
        self.observer: Observer | None = None
        self._doomed = False
        self._around = Circumstances()
        self._spawned_at: float | None = None
        loop.perform = self.perform
        loop.worker_lives = lambda: self.live is not None
        loop.look = self._look

    def perform(self, effect: Effect) -> None:
        """Start carrying out one effect."""
        if isinstance(effect, EndRun):
            if not self.loop.result.done():
                self.loop.result.set_result(effect.state)
            return
        self.loop.tasks.start(_TABLE[type(effect)](self, effect))

    def close(self) -> None:
        """Let go of what was started ahead."""
        self.workers.close()
        self.disk.close()

    async def reclaim(self, effect: ReclaimWorker) -> None:
        """A runner died: end what is left of its worker, then conclude the attempt."""
        left = await self._own_worker_lock()
        self._around = Circumstances(lost=True, rebooted=effect.rebooted, survivors=left)
        await self._conclude()

    async def choose(self, effect: ChooseCheckpoint) -> None:
        """Find what the next attempt starts from."""
        left = await self._own_worker_lock()
        if left:
            pids = ", ".join(map(str, left))
            reason = f"process {pids} of an earlier attempt does not end"
            await self.loop.feed(HoldRequired(Cause.UNKILLABLE, reason))
            return
        try:
            events = await self.checkpoints.choose(effect.below)
        except (CheckpointError, OSError) as error:  # OSError: the pointer file, for example
            full = isinstance(error, DiskFull) or getattr(error, "errno", 0) in FULL_ERRNOS
            cause = Cause.DISK_FULL if full else Cause.BAD_CHECKPOINT
            events = (HoldRequired(cause, str(error)),)
        for event in events:
            await self.loop.feed(event)

    async def spawn(self, effect: SpawnAttempt) -> None:
        """Start the worker, watch it, and see it out."""
        self._around = Circumstances()
        oom_kills = host.oom_kills()
        try:
            async with self.workers.spawn(effect) as live:
                self.live, self._spawned_at = live, self.loop.clock()
                if self._doomed:
                    await live.child.kill()
                await self._live(effect.number, live)
            left = tuple(one.pid for one in live.child.survivors())
            self._around = replace(self._around, survivors=left)
        except SpawnFailed as error:
            permanent = error.errno not in PASSING_ERRNOS
            failed = SpawnError(error.stage, error.errno, str(error), permanent)
            self._around = Circumstances(spawn_error=failed)
            await self._conclude()
        except ChildUnkillable as error:
            self._around = replace(self._around, survivors=_pids(error))
        finally:
            self._doomed = False
            if self.live is not None:
                self._around = replace(self._around, oom_kills=host.oom_kills() - oom_kills)
                self.live.gone.set()
                self.live = None

    async def stop(self, _effect: StopWorker) -> None:
        """Ask the worker to stop; without one (it is being spawned, or gone) there is no need."""
        if self.live is not None:
            await self.live.stop(self.loop.state.timeouts.stop_s)

    async def kill(self, effect: KillWorker) -> None:
        """End the whole tree at once."""
        live = self.live
        if live is None:
            self._doomed = True  # it is being spawned: it ends as soon as it is there
            return
        if effect.capture_stacks:
            await live.save_stacks()
        try:
            await live.child.kill()  # it may have died of the look at its stacks
        except ChildUnkillable as error:  # it will never exit: conclude without its status
            self._around = replace(self._around, survivors=_pids(error))
            await self._conclude()

    async def conclude(self, _effect: ConcludeAttempt) -> None:
        """The main process ended: see the tree out, then find the cause and decide."""
        if self.live is not None:
            await self.live.gone.wait()
        await self._conclude()

    async def wait(self, effect: WaitBackoff) -> None:
        """Wait until the next attempt is due."""
        await asyncio.sleep(effect.delay_s)
        await self.loop.feed(BackoffElapsed())

    async def _live(self, number: int, live: LiveWorker) -> None:
        child = live.child
        await self.loop.feed(AttemptSpawned(number, child.pid, child.start_ticks))
        self.observer = Observer(self.loop, self.checkpoints, number)
        watching = self.loop.tasks.start(self.observer.run())
        ahead = self.loop.tasks.start(self._launcher_ahead())
        status = await child.wait()
        watching.cancel()
        ahead.cancel()
        await self.loop.feed(WorkerExited(number, status.code, status.signal))
        await live.see_out()

    async def _launcher_ahead(self) -> None:
        await asyncio.sleep(AHEAD_AFTER_S)
        with suppress(SpawnFailed):  # then the next attempt tries for itself, and says so
            self.workers.start_ahead()

    async def _look(self) -> None:
        if self.observer is not None:
            await self.observer.look_at_everything()

    async def _own_worker_lock(self) -> tuple[int, ...]:
        if self.job.worker_lock.held:
            return ()
        return await locks.reclaim_worker_lock(self.job.worker_lock, self.loop.clock)

    async def _conclude(self) -> None:
        if self.observer is not None:
            await self.observer.look_at_output()  # its last words
            self.observer = None
        await self._last_survey()
        state = self.loop.state
        folder = self.job.folder.attempt(state.attempt)
        seen = gather(self.job, state, self._around)
        write_evidence(folder, seen)
        moment = Moment(time.time(), self._ran_s(state.attempt), random.random())  # noqa: S311 - jitter
        await self.loop.feed(conclude(state, self.job.settings.policy, seen, moment))

    async def _last_survey(self) -> None:
        """Verify what it saved last. Who insists on the end need not wait for a dead disk."""
        survey = self.loop.tasks.start(self.checkpoints.survey(worker_lives=False))
        insisted = self.loop.tasks.start(self.loop.forced.wait())
        await asyncio.wait({survey, insisted}, return_when=asyncio.FIRST_COMPLETED)
        insisted.cancel()
        if survey.done() and (newest := survey.result()) is not None:
            await self.loop.feed(newest)

    def _ran_s(self, number: int) -> float:
        """How long the attempt ran; one whose runner died, until its last words."""
        if self._around.spawn_error is not None:
            return 0.0
        if not self._around.lost and self._spawned_at is not None:
            return self.loop.clock() - self._spawned_at
        with suppress(OSError, IndexError, TypeError):
            spawned_s = self.job.journal.attempts(self.job.id)[number - 1].spawned_s
            last_word_s = self.job.folder.attempt(number).log.stat().st_mtime
            return max(0.0, last_word_s - float(spawned_s or last_word_s))
        return 0.0


def _pids(error: ChildUnkillable) -> tuple[int, ...]:
    return tuple(one.pid for one in error.survivors) or (error.pid,)


_TABLE: dict[type[Effect], Callable[[Effects, Any], Coroutine[Any, Any, None]]] = {
    ReclaimWorker: Effects.reclaim,
    ChooseCheckpoint: Effects.choose,
    SpawnAttempt: Effects.spawn,
    StopWorker: Effects.stop,
    KillWorker: Effects.kill,
    ConcludeAttempt: Effects.conclude,
    WaitBackoff: Effects.wait,
}
