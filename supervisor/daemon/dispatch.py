"""From the queue to a living runner, and back when it is gone.

Owns the order of steps: plan, commit, launch, watch, conclude. A placement is committed before the
runner is launched, so a daemon that dies in between launches it again, and the runner's own lock
keeps two of them apart. What a job does is its runner's; in which order jobs start is the plan's.
"""

import asyncio
import time
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from supervisor.core.causes import State
from supervisor.daemon.aftermath import Aftermath, Means
from supervisor.daemon.contracts import Launch, Launcher, LaunchFailed, Refusal, Shelves
from supervisor.daemon.ending import SOON_S, Around, after_runner
from supervisor.daemon.gpus import GpuDesk
from supervisor.daemon.hosting import Hosting
from supervisor.daemon.roster import Roster
from supervisor.daemon.runners import Runners
from supervisor.host import identity
from supervisor.host.lean import structlog
from supervisor.queue.model import Entry, Phase, Wish
from supervisor.queue.plan import Capacity, Situation, Start, plan

LOOK_AGAIN_S = 2.0  # at what others do with the GPUs, while somebody waits for one
AGE_S = 60.0  # waiting jobs rise with time
UNREADABLE_S = 2.0
RESTS = 5  # times as long as it took, a plan is not made anew, unless a place was freed
LISTENS_S = 0.1  # how often a runner that starts is asked whether it listens


class Dispatch:
    """Starts what may start. `waits` says of every other job what it waits for."""

    def __init__(
        self,
        roster: Roster,
        shelves: Shelves,
        launcher: Launcher,
        gpus: GpuDesk,
        capacity: Capacity,
    ) -> None:
        self.waits: Mapping[str, str] = {}
        self.order: tuple[str, ...] = ()
        self.runners = Runners(self._gone)
        self.capacity = capacity
        self.gpus = gpus
        self.launcher = launcher
        self.leaving = False
        self.hosting = Hosting(user=True)
        self._roster = roster
        self._shelves = shelves
        self._boot = identity.boot_id()
        self._due, self._freed = asyncio.Event(), asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: dict[str, asyncio.Event] = {}
        self._log = structlog.get_logger()
        means = Means(roster, shelves, gpus, self.settled, self._relaunch)
        self._aftermath = Aftermath(means)

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
            await self._turn()
            took_s = loop.time() - began
            await _waited(self._due, self._patience_s())
            # A plan of thousands takes its time; thousands of submissions are not one plan each.
            await _waited(self._freed, took_s * RESTS)

    async def adopt(self) -> None:
        """Find the runners of the daemon before this one; conclude those that ended meanwhile."""
        for entry in self._roster.of(Phase.STARTED):
            self.gpus.placed(entry.id, entry.needs, ())
            await self._find(entry)

    async def close(self) -> None:
        """Look away from all runners; they go on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.runners.close()

    async def until_ended(self, job_id: str, limit_s: float) -> bool:
        """Wait until a job is not started any more; False where that took too long."""
        event = self._ended.setdefault(job_id, asyncio.Event())
        entry = self._roster.get(job_id)
        if entry is None or entry.phase is Phase.ENDED:
            return True
        try:
            async with asyncio.timeout(limit_s):
                await event.wait()
        except TimeoutError:
            return False
        return True

    def settled(self, job_id: str) -> None:
        """A job has ended, or waits anew: whoever waited for that may go on."""
        event = self._ended.pop(job_id, None)
        if event is not None:
            event.set()
        self.nudge(freed=True)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside; its fault is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._log.error("fault", exc_info=task.exception())

    def _patience_s(self) -> float | None:
        waiting = self._roster.of(Phase.WAITING)
        if not waiting:
            return None
        return LOOK_AGAIN_S if any(one.needs.gpus for one in waiting) else AGE_S

    async def _turn(self) -> None:
        if self.leaving:
            return
        waiting = self._roster.of(Phase.WAITING)
        if any(one.needs.gpus for one in waiting):
            await self.gpus.look()
            waiting = self._roster.of(Phase.WAITING)  # a look takes its time
        started = self._roster.of(Phase.STARTED)
        situation = Situation(
            waiting=waiting,
            started=started,
            states=self._states(waiting),
            held_groups=self._roster.held_groups(),
            failures=self._roster.failures(),
            capacity=self.capacity,
            now_s=time.time(),
        )
        found = plan(situation, self.gpus.taker(started))
        self.waits = found.waits
        self.order = tuple(found.waits)
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
        changes = []
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
            changes.append((entry, "Placed", {"gpus": list(start.gpus)}))
        self._roster.change_all(changes)
        chosen = {start.id: start.gpus for start in starts}
        for entry, _, _ in changes:
            self.gpus.placed(entry.id, entry.needs, chosen[entry.id])
            self.spawn(self._launch(entry, chosen[entry.id]))

    async def _launch(self, entry: Entry, gpus: tuple[str, ...] = (), after_s: float = 0) -> None:
        if after_s:
            await asyncio.sleep(after_s)
        if self.leaving or self._current(entry) is None:
            return
        try:
            shelf = self._shelves.of(entry.uid)
            launch = Launch(entry.id, entry.uid, shelf.path, gpus, entry.stop_s)
            pid = await self.launcher.launch(launch)
        except (LaunchFailed, Refusal) as error:
            self._log.warning("not launched", job=entry.id, why=str(error))
            await self._conclude(entry.id, 0.0, f"its runner could not be started: {error}")
            return
        self.runners.watch(entry.id, pid)
        latest = self._roster.get(entry.id)
        if latest is not None and latest.wish is not Wish.RUN:
            await self.ask_to_stop(latest)

    def _relaunch(self, entry: Entry, after_s: float) -> None:
        self.spawn(self._launch(entry, after_s=after_s))

    async def ask_to_stop(self, entry: Entry, *, kill: bool = False) -> None:
        """Signal the runner of a started job. One that does not listen yet is told when it does."""
        if entry.id in self.runners and not await self._heard(entry, kill=kill):
            self.spawn(self._insist(entry, kill=kill))

    async def _insist(self, entry: Entry, *, kill: bool) -> None:
        """Tell a runner that is only starting; it says in the journal when it listens."""
        while entry.id in self.runners:
            await asyncio.sleep(LISTENS_S)
            with suppress(Refusal):  # of a disk, perhaps: its owner still wants it to stop
                if await self._heard(entry, kill=kill):
                    return

    async def _heard(self, entry: Entry, *, kill: bool) -> bool:
        asked = {"id": entry.id, "kill": kill}
        return bool((await self._shelves.of(entry.uid).ask("stop", asked))["heard"])

    def _gone(self, job_id: str, lived_s: float) -> None:
        self.spawn(self._conclude(job_id, lived_s))

    async def _find(self, entry: Entry) -> None:
        """Watch the runner of a started job if it lives, else conclude its end."""
        found = await self._ask(entry, "runner")
        pid = None if found is None else alive_pid(found)
        if pid is not None:
            self.runners.watch(entry.id, pid)
            if entry.wish is not Wish.RUN:  # the daemon before may have died before it could ask
                self.spawn(self._insist(entry, kill=False))
        else:
            self.spawn(self._conclude(entry.id, SOON_S, found=found))

    async def _conclude(
        self, job_id: str, lived_s: float, trouble: str = "", found: dict[str, Any] | None = None
    ) -> None:
        """A runner is gone: read how far the job came, and do what follows."""
        entry = self._roster.get(job_id)
        if entry is None or entry.phase is not Phase.STARTED:
            return
        while found is None:
            found = await self._ask(entry, "runner")
            if found is None:  # full disk, damaged journal: nothing is known, so nothing is done
                await asyncio.sleep(UNREADABLE_S)
        pid = alive_pid(found)
        if pid is not None:  # another runner has the job: a person's, or one we did not see
            self.runners.watch(job_id, pid)
            return
        state = State(found["state"])
        away = self.leaving or entry.boot_id != self._boot
        if state is State.STOPPED and not away:
            away = await self.hosting.going_down()
        entry = self._roster.get(job_id) or entry
        if trouble and state not in {State.SUCCEEDED, State.CANCELLED}:
            state = State.QUEUED  # it has not begun to run: what it was before does not count
        following = after_runner(entry, Around(state, lived_s, away))
        why = trouble or str(found["why"])
        await self._aftermath.carry_out(following, replace(entry, state=state, why=why), lived_s)

    def _current(self, entry: Entry) -> Entry | None:
        """The entry, if it is still this launch that counts."""
        now = self._roster.get(entry.id)
        same = now is not None and now.phase is Phase.STARTED and now.launches == entry.launches
        return now if same else None

    async def _ask(self, entry: Entry, question: str) -> dict[str, Any] | None:
        try:
            answer: dict[str, Any] = await self._shelves.of(entry.uid).ask(
                question, {"id": entry.id}
            )
        except Refusal as error:
            self._log.warning("not answered", job=entry.id, question=question, why=str(error))
            return None
        return answer


async def _waited(event: asyncio.Event, limit_s: float | None) -> None:
    """Wait until something happens, or the time is over."""
    with suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await event.wait()


def alive_pid(found: Mapping[str, Any]) -> int | None:
    """The process that has the job, from what its shelf says of its runner; None if there is none.

    The lock is the proof. Who holds it is a pid of this boot, or 0 where the kernel may not tell:
    then the journal's word counts, if a process of that pid began when it says.
    """
    holder: int | None = found["locked_by"]
    if holder:
        return holder
    pid, ticks = found["pid"], found["start_ticks"]
    same = pid is not None and found["boot_id"] == identity.boot_id()
    if holder == 0 and same and identity.start_ticks(pid) == ticks:
        return int(pid)
    return None
