"""The running attempt: from its bounds and its spawn to the conclusion that is drawn from its end.

Owns the worker and those who look at it. One attempt at a time; what lives longer is handed in.
Invariant: an end is concluded only when the whole tree is gone, or proven not to go.
"""

import asyncio
import random
import time
from contextlib import suppress
from dataclasses import dataclass, replace

from supervisor.core.conclude import Moment, conclude
from supervisor.core.effects import SpawnAttempt
from supervisor.core.events import AttemptSpawned, WorkerExited, WorkerRevived
from supervisor.core.evidence import DeadlineName, SpawnError
from supervisor.core.hang import Verdict
from supervisor.process import ChildUnkillable, SpawnFailed
from supervisor.runner.checkpoints import Checkpoints
from supervisor.runner.gather import Circumstances, gather, write_evidence
from supervisor.runner.gpus import Gpus
from supervisor.runner.isolation import Enclosure, Isolation
from supervisor.runner.loop import Loop
from supervisor.runner.outfit import Outfit
from supervisor.runner.session.session import Session
from supervisor.runner.space import Disks
from supervisor.runner.watcher import Subject, Watcher
from supervisor.runner.worker import LiveWorker, Workers

# errno values after which the very same spawn may work a moment later
PASSING_ERRNOS = {11, 12, 23, 24, 26, 28}  # EAGAIN ENOMEM ENFILE EMFILE ETXTBSY ENOSPC
AHEAD_AFTER_S = 0.2  # two interpreters that start at once slow each other down


@dataclass(frozen=True, slots=True)
class Tools:
    """What an attempt needs of the run."""

    checkpoints: Checkpoints
    gpus: Gpus
    isolation: Isolation
    workers: Workers
    disks: Disks
    outfit: Outfit


class Attempt:
    """The attempt that runs, or the last one that did."""

    def __init__(self, loop: Loop, tools: Tools) -> None:
        self._loop = loop
        self._job = loop.job
        self._tools = tools
        self._live: LiveWorker | None = None
        self._watcher: Watcher | None = None
        self._doomed = False
        self._around = Circumstances()
        self._spawned_at: float | None = None

    @property
    def lives(self) -> bool:
        """Whether there is a worker."""
        return self._live is not None

    async def live(self, effect: SpawnAttempt) -> None:
        """Start the worker, watch it, and see it out."""
        self._around, self._doomed = Circumstances(), False
        enclosure = self._tools.isolation.enclose(effect.number)
        live: LiveWorker | None = None
        session = self._tools.outfit.open_session(effect.number)
        try:
            async with self._tools.workers.spawn(effect, enclosure, session) as live:
                self._live, self._spawned_at = live, self._loop.clock()
                if self._doomed:
                    await self.kill(capture=False)
                if self._live is live:
                    await self._watch(Subject(effect.number, live, enclosure, session))
            left = tuple(one.pid for one in live.child.survivors())
            self._survived(live, left)
        except SpawnFailed as error:
            self._around = Circumstances(spawn_error=spawn_error(error))
        except ChildUnkillable as error:
            self._survived(live, _pids(error))
        finally:
            if session is not None:
                await self._hear_out(session, live)
            self._close(enclosure, live)
        if live is None:
            await self._conclude()

    async def stop(self) -> None:
        """Ask the worker to stop; without one (it is being spawned, or gone) there is no need."""
        if self._live is not None:
            await self._live.stop(self._loop.state.timeouts.stop_s)

    async def kill(self, *, capture: bool) -> None:
        """End the whole tree at once; of a hung one, write down first where it stood."""
        live = self._live
        if live is None:
            self._doomed = True  # it is being spawned: it ends as soon as it is there
            return
        if capture and self._watcher is not None and await self._moves(live, self._watcher):
            await self._loop.feed(WorkerRevived(self._loop.state.attempt))
            return
        try:
            await live.child.kill()  # it may have died of the look at its stacks
        except ChildUnkillable as error:  # it will never exit: conclude without its status
            if self._live is live:  # two kills may wait at once
                self._survived(live, _pids(error))
                self._abandon()
                await self._conclude()

    def _survived(self, live: LiveWorker | None, pids: tuple[int, ...]) -> None:
        if self._live is live:
            self._around = replace(self._around, survivors=pids)

    def _abandon(self) -> None:
        """What becomes of the worker, now or in a week, is no news of the attempt after it."""
        if self._live is not None:
            self._live.gone.set()
            self._live = None
        if self._watcher is not None:
            self._watcher.end()

    async def _moves(self, live: LiveWorker, watcher: Watcher) -> bool:
        """Write down where a hung worker stands; whether it gave a sign of progress meanwhile."""
        last_sign_at = self._loop.last_sign_at
        unharmed = await live.save_evidence(watcher.gpu_lines())
        if not unharmed:
            return False  # what it prints now are its stacks
        await watcher.look_at_everything()
        return self._loop.last_sign_at > last_sign_at

    async def look(self) -> None:
        """Take in what the worker did while this process was held up."""
        if self._watcher is not None:
            await self._watcher.look_at_everything()

    def judge(self, name: DeadlineName) -> Verdict | None:
        """Whether the silent worker is hung; None where there is nobody to judge by."""
        return None if self._watcher is None else self._watcher.judge(name)

    async def conclude(self) -> None:
        """The main process ended: see the tree out, then find the cause and decide."""
        if self._live is not None:
            await self._live.gone.wait()
        await self._conclude()

    async def conclude_lost(self, around: Circumstances) -> None:
        """Conclude an attempt whose runner died."""
        self._around = around
        await self._conclude()

    async def _watch(self, subject: Subject) -> None:
        child = subject.live.child
        await self._loop.feed(AttemptSpawned(subject.number, child.pid, child.start_ticks))
        watcher = Watcher(self._loop, subject, self._tools.checkpoints, self._tools.gpus)
        self._watcher = watcher
        self._tools.gpus.tree, self._tools.gpus.known = watcher.pids, lambda: watcher.known
        watcher.start()
        ahead = self._loop.tasks.start(self._launcher_ahead(subject.live))
        status = await child.wait()
        watcher.end()
        ahead.cancel()
        if self._live is not subject.live:
            return  # it was given up: nobody waits for its end any more
        await self._loop.feed(WorkerExited(subject.number, status.code, status.signal))
        await subject.live.see_out()

    async def _launcher_ahead(self, live: LiveWorker) -> None:
        await asyncio.sleep(AHEAD_AFTER_S)
        with suppress(SpawnFailed):  # then the next attempt tries for itself, and says so
            pid = await self._tools.workers.start_ahead(live)
            self._tools.isolation.prepare(self._loop.state.attempt + 1, pid)

    async def _hear_out(self, session: Session, live: LiveWorker | None) -> None:
        """After the tree: what its processes had said to the last."""
        try:
            await session.drain()
        except Exception as error:  # noqa: BLE001 - a word less must not keep the end from being concluded
            self._loop.listener.warned(f"what the worker said last is lost: {error!r}")
        if self._live is live:
            said = session.said
            self._around = replace(
                self._around, report=said.error, step=said.step, finished=said.finished
            )
        await session.close()

    def _close(self, enclosure: Enclosure, live: LiveWorker | None) -> None:
        """After the tree: what the kernel killed of it, and its bounds are taken down."""
        if self._live is not live:  # it was given up; what is known of it was concluded then
            if enclosure.leaf is not None:
                enclosure.leaf.remove()
            return
        watcher = self._watcher
        known = frozenset[int]() if watcher is None else watcher.known
        oom, host_kills = self._tools.isolation.opened(enclosure, known)
        curve = () if watcher is None else watcher.gpu_curve()
        self._around = replace(self._around, oom=oom, oom_kills=host_kills, gpu_curve=curve)
        if self._live is not None:
            self._live.gone.set()
            self._live = None

    async def _conclude(self) -> None:
        if self._watcher is not None:
            await self._watcher.last_words()
            self._watcher = None
        await self._last_survey()
        self._around = replace(self._around, no_room=await self._tools.disks.full())
        state = self._loop.state
        folder = self._job.folder.attempt(state.attempt)
        seen = gather(self._job, state, self._around)
        write_evidence(folder, seen)
        moment = Moment(time.time(), self._ran_s(state.attempt), random.random())  # noqa: S311 - jitter
        await self._loop.feed(conclude(state, self._job.settings.policy, seen, moment))

    async def _last_survey(self) -> None:
        """Verify what it saved last. Who insists on the end need not wait for a dead disk."""
        survey = self._loop.tasks.start(self._tools.checkpoints.last_survey())
        insisted = self._loop.tasks.start(self._loop.forced.wait())
        await asyncio.wait({survey, insisted}, return_when=asyncio.FIRST_COMPLETED)
        insisted.cancel()
        for found in survey.result() if survey.done() else ():
            await self._loop.feed(found)

    def _ran_s(self, number: int) -> float:
        """How long the attempt ran; one whose runner died, until its last words."""
        if self._around.spawn_error is not None:
            return 0.0
        if not self._around.lost and self._spawned_at is not None:
            return self._loop.clock() - self._spawned_at
        with suppress(OSError, IndexError, TypeError):
            spawned_s = self._job.journal.attempts(self._job.id)[number - 1].spawned_s
            last_word_s = self._job.folder.attempt(number).log.stat().st_mtime
            return max(0.0, last_word_s - float(spawned_s or last_word_s))
        return 0.0


def spawn_error(error: SpawnFailed) -> SpawnError:
    """Why no worker came to be, as evidence."""
    # A GPU that is not given back is set aside: another may be there.
    permanent = error.errno not in PASSING_ERRNOS and error.stage != "gpu"
    return SpawnError(error.stage, error.errno, str(error), permanent)


def _pids(error: ChildUnkillable) -> tuple[int, ...]:
    return tuple(one.pid for one in error.survivors) or (error.pid,)
