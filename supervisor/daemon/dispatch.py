"""Runners launched, watched, found again; and what follows when one is gone.

Owns a started job's life as the daemon sees it. A placement was committed before the runner is
launched, so a daemon that dies in between launches it again, and the runner's own lock keeps two of
them apart. What a job does is its runner's; what its end means is judged in `ending`. Invariant: a
job is given up only where its runner is known to be gone: a shelf alone proves nothing.
"""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any

from supervisor.core.causes import State
from supervisor.daemon import aftermath
from supervisor.daemon.aftermath import Aftermath, Means
from supervisor.daemon.contracts import (
    Launch,
    Launcher,
    LaunchFailed,
    NoSuchJob,
    Refusal,
    Shelves,
)
from supervisor.daemon.ending import SOON_S, Around, Next, after_runner
from supervisor.daemon.gpus import GpuDesk
from supervisor.daemon.hosting import Hosting
from supervisor.daemon.living import alive_pid, may_run
from supervisor.daemon.placing import Placing
from supervisor.daemon.roster import Roster
from supervisor.daemon.runners import Runners
from supervisor.daemon.signals import Signals
from supervisor.host import identity
from supervisor.host.lean import structlog
from supervisor.queue.model import Entry, Phase, Wish
from supervisor.queue.plan import Capacity

UNREADABLE_S = 2.0
FORGOTTEN = "its journal knows it no more"
SILENT = "its runner is gone, and its owner's folder of jobs could not be read; resume it then"


@dataclass(frozen=True, slots=True)
class Ground:
    """What jobs are started on."""

    roster: Roster
    shelves: Shelves
    launcher: Launcher
    gpus: GpuDesk
    capacity: Capacity


class Dispatch:
    """The runners of a daemon. `placing` says who gets one."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._roster = ground.roster
        self.placing = Placing(ground.roster, ground.gpus, ground.capacity, self._begin)
        self.runners = Runners(self._gone)
        self.signals = Signals(ground.shelves, self.runners)
        self.hosting = Hosting(user=True)
        self._boot = identity.boot_id()
        self.resting: set[str] = set()  # jobs whose next runner is to come later
        self.silent: set[str] = set()  # jobs that no runner is seen of, and no shelf tells of
        self._over: set[str] = set()  # jobs whose runner was seen to end
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: dict[str, asyncio.Event] = {}
        self._log = structlog.get_logger()
        means = Means(
            ground.roster, ground.shelves, ground.gpus, self.settled, self._begin_again, self._gone
        )
        self._aftermath = Aftermath(means)

    async def adopt(self) -> None:
        """Find the runners of the daemon before this one; conclude those that ended meanwhile."""
        started = self._roster.of(Phase.STARTED)
        for entry in started:
            self._ground.gpus.placed(entry.id, entry.needs, ())
        # All at once: one user's folder that hangs must not keep others waiting.
        await asyncio.gather(*(self._find(entry) for entry in started))

    async def close(self) -> None:
        """Look away from all runners; they go on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.signals.close()
        self.runners.close()

    async def until_ended(self, job_id: str, limit_s: float) -> bool:
        """Wait until a job is not started any more; False where that took too long."""
        entry = self._roster.get(job_id)
        if entry is None or entry.phase is Phase.ENDED:
            return True
        event = self._ended.setdefault(job_id, asyncio.Event())
        try:
            async with asyncio.timeout(limit_s):
                await event.wait()
        except TimeoutError:
            return False
        return True

    def settled(self, job_id: str) -> None:
        """A job has ended, or waits anew: whoever waited for that may go on."""
        self._over.discard(job_id)
        self._ground.gpus.gone(job_id)
        self.signals.forget(job_id)
        self._wake(job_id)
        self.placing.nudge(freed=True)

    async def is_lost(self, entry: Entry) -> bool:
        """Whether its runner is known to be gone, and its shelf does not tell what became of it."""
        over = entry.id in self._over or entry.boot_id != self._boot
        over = over or not await asyncio.to_thread(may_run, entry.uid)
        return over and entry.id in self.silent and self._is_current(entry)

    def _wake(self, job_id: str) -> None:
        event = self._ended.pop(job_id, None)
        if event is not None:
            event.set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside; its fault is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._log.error("fault", exc_info=task.exception())

    def _begin(self, entry: Entry, gpus: tuple[str, ...]) -> None:
        self.spawn(self._launch(entry, gpus))

    def _begin_again(self, entry: Entry, after_s: float) -> None:
        self.resting.add(entry.id)
        self.spawn(self._launch(entry, after_s=after_s))

    async def _launch(self, entry: Entry, gpus: tuple[str, ...] = (), after_s: float = 0) -> None:
        try:
            if after_s and not self.placing.leaving:
                await asyncio.sleep(after_s)
        finally:
            self.resting.discard(entry.id)
        if self.placing.leaving:  # the next daemon launches it: here nobody is to wait for that
            self._wake(entry.id)
            return
        if not self._is_current(entry):
            return
        latest = self._roster.get(entry.id) or entry
        self._over.discard(entry.id)
        stopped_by = "" if latest.wish is Wish.RUN else f"supervise {latest.wish}"
        try:
            shelf = self._ground.shelves.of(entry.uid)
            launch = Launch(entry.id, entry.uid, shelf.path, gpus, entry.stop_s, stopped_by)
            pid = await self._ground.launcher.launch(launch)
        except (LaunchFailed, Refusal) as error:
            if isinstance(error, Refusal):  # nobody was asked for a runner
                self._over.add(entry.id)
            self._log.warning("not launched", job=entry.id, why=str(error))
            await self._conclude(entry.id, 0.0, f"its runner could not be started: {error}")
            return
        self.runners.watch(entry.id, pid)
        if not stopped_by:  # else it knows, and a second word would be one of force
            self._tell_wish(entry)

    def _tell_wish(self, entry: Entry) -> None:
        """What its owner wished before the runner was there to hear it."""
        latest = self._roster.get(entry.id)
        if latest is None:
            return
        self.signals.begun(latest)
        if latest.wish is not Wish.RUN:
            self.signals.tell(latest)

    def _gone(self, job_id: str, lived_s: float) -> None:
        self._over.add(job_id)
        self.signals.forget(job_id)
        self.spawn(self._conclude(job_id, lived_s))

    async def _find(self, entry: Entry) -> None:
        """Watch the runner of a started job if it lives, else conclude its end."""
        found = await self._asked(entry)
        pid = None if found is None else alive_pid(found)
        if pid is None:
            self.spawn(self._conclude(entry.id, SOON_S, found=found))
            return
        self.runners.watch(entry.id, pid, lived_s=SOON_S)
        self._tell_wish(entry)  # the daemon before may have died before it could

    async def _conclude(
        self, job_id: str, lived_s: float, trouble: str = "", found: dict[str, Any] | None = None
    ) -> None:
        """A runner is gone: read how far the job came, and do what follows."""
        entry = self._roster.get(job_id)
        if entry is None or entry.phase is not Phase.STARTED:
            return
        found = found or await self._heard(entry)
        if found is None:
            return
        pid = alive_pid(found)
        if pid is not None:  # another runner has the job: a person's, or one we did not see
            self.runners.watch(job_id, pid)
            self._tell_wish(entry)
            return
        state = State(found["state"])
        if state is State.HOLDING and not found["ended"]:
            state = State.BACKING_OFF  # its runner waited for room, and would have gone on
        away = self.placing.leaving or entry.boot_id != self._boot
        if state is State.STOPPED and not away:
            away = await self.hosting.going_down()
        entry = self._roster.get(job_id)
        if entry is None or entry.phase is not Phase.STARTED:
            return
        if trouble and state not in {State.SUCCEEDED, State.CANCELLED}:
            state = State.QUEUED  # it has not begun to run: what it was before does not count
        following = after_runner(entry, Around(state, lived_s, away))
        if found is _SILENT:  # it cannot be told of a wish either
            following, state = Next.END, State.HOLDING
        why = trouble or str(found["why"])
        await self._aftermath.carry_out(following, replace(entry, state=state, why=why), lived_s)

    async def _heard(self, entry: Entry) -> dict[str, Any] | None:
        """What its shelf says in the end; None where the job has gone on without it.

        Full disk, damaged journal: nothing is known, so nothing is done while the runner may live.
        One that is gone keeps its place only so long, or a user could keep others out for ever.
        """
        now = asyncio.get_running_loop().time
        until_s = now() + aftermath.SILENT_S
        try:
            while self._is_current(entry):
                found = await self._asked(entry)
                if found is not None:
                    return found
                self.silent.add(entry.id)
                if self.placing.leaving:  # the next daemon asks again
                    self._wake(entry.id)
                if now() >= until_s:
                    if await self.is_lost(entry):
                        return _SILENT
                    until_s = now() + aftermath.SILENT_S
                await asyncio.sleep(UNREADABLE_S)
        finally:
            self.silent.discard(entry.id)
        return None

    def _is_current(self, entry: Entry) -> bool:
        """Whether it is still this launch of the job that counts."""
        now = self._roster.get(entry.id)
        return now is not None and now.phase is Phase.STARTED and now.launches == entry.launches

    async def _asked(self, entry: Entry) -> dict[str, Any] | None:
        """What its shelf says of the job's runner; None where it says nothing."""
        try:
            answer: dict[str, Any] = await self._ground.shelves.of(entry.uid).ask(
                "runner", {"id": entry.id}
            )
        except NoSuchJob:  # its owner has removed the journal, or one of ours is lost
            return _FORGOTTEN
        except Refusal as error:
            self._log.warning("not answered", job=entry.id, why=str(error))
            return None
        return answer


_FORGOTTEN: dict[str, Any] = {
    "locked_by": None,
    "pid": None,
    "start_ticks": None,
    "boot_id": None,
    "state": State.HOLDING,
    "why": FORGOTTEN,
    "ended": True,
}
_SILENT = _FORGOTTEN | {"why": SILENT}
