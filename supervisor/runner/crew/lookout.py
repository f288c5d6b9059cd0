"""Everything that looks at the workers of a crew: deadlines, hangs, memory, GPUs, and the count.

Owns the rhythm. What is found becomes words for the crew, or facts for the job; none decides.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, replace
from typing import Protocol

from supervisor.core.batch import deadlines
from supervisor.core.batch.deadlines import Due, Wait
from supervisor.core.batch.state import BatchState, Worker
from supervisor.core.batch.words import Outgrown, Overdue, Word
from supervisor.core.deadlines import Deadlines, Timeouts
from supervisor.core.events import Event, LimitExceeded
from supervisor.core.evidence import Breach, DeadlineName, GpuUse
from supervisor.core.state import JobState
from supervisor.process.orphans import Orphans
from supervisor.runner.crew.member import Member
from supervisor.runner.crew.tally import Tally
from supervisor.runner.gpu_watch import GpuWatch
from supervisor.runner.gpus import Gpus
from supervisor.runner.listener import Listener
from supervisor.runner.loop import Loop
from supervisor.runner.memory_watch import MemoryWatch
from supervisor.runner.opening import OpenJob
from supervisor.runner.settings import BatchSettings
from supervisor.runner.suspicion import Suspicion
from supervisor.runner.tasks import Tasks

LOOK_S = 0.25
REMEMBERED = 256  # processes of workers that are gone
HELD_UP_S = 1.0  # a look that is later than this: the process was stopped, frozen or starved
_NAMES = {Wait.STARTUP: DeadlineName.STARTUP, Wait.HEARTBEAT: DeadlineName.HEARTBEAT}


class Watched(Protocol):
    """The crew, as far as those who look at it need it."""

    state: BatchState | None
    members: dict[int, Member]

    @property
    def held_up(self) -> bool:
        """Whether the workers are not heard at present."""

    async def tell(self, word: Word) -> None:
        """Take in a word."""


@dataclass(slots=True)
class Looked:
    """One worker, and who looks at it."""

    member: Member
    suspicion: Suspicion
    memory: "asyncio.Task[None] | None"
    excused_until: float = 0.0


class Lookout:
    """Looks at the workers of one attempt after the other."""

    def __init__(self, loop: Loop, crew: Watched, gpus: Gpus, settings: BatchSettings) -> None:
        self._loop = loop
        self._crew = crew
        self._gpus = gpus
        self._settings = settings
        self._timeouts = settings.timeouts
        self._orphans = Orphans()
        self._looked: dict[int, Looked] = {}
        self._gone: deque[int] = deque(maxlen=REMEMBERED)
        self._tasks: list[asyncio.Task[None]] = []
        self._gpu: GpuWatch | None = None
        self._tally = Tally(loop, 0)

    def start(self, number: int) -> None:
        """Begin to look."""
        self._tally = Tally(self._loop, number)
        self._gpus.tree, self._gpus.known = self._pids, self._known
        self._tasks = [self._loop.tasks.start(self._run())]
        if self._loop.job.settings.resources.gpus:
            self._gpu = GpuWatch(_CrewStage(self._loop, self), self._gpus, number)
            watching = self._loop.spare("watching the GPUs", self._gpu.run())
            self._tasks.append(self._loop.tasks.start(watching))

    def end(self) -> None:
        """Look no more."""
        for task in self._tasks:
            task.cancel()
        self._tell_count(last=True)

    def joined(self, member: Member) -> None:
        """A worker is being started."""
        stage = _MemberStage(self._loop, self._crew, member, self._timeouts)
        limit = self._loop.job.settings.resources.memory_bytes
        memory = None
        if limit is not None and not member.birth.enclosure.memory_held:
            watch = MemoryWatch(stage, member.serial, member.pids, limit)
            memory = self._loop.tasks.start(watch.run())
        share = self._gpus.share(member.birth.slot, self._settings.gpus)
        if self._gpu is not None:
            watched = self._gpu
            watched.forget_limits()
            member.gpu_activity = lambda: tuple(
                one for one in watched.activity() if one.uuid in share
            )
            member.gpu_bytes = lambda: sum(watched.used.get(uuid, 0) for uuid in share) or None
        self._looked[member.serial] = Looked(member, Suspicion(stage, member), memory)

    def left(self, member: Member) -> None:
        """A worker is gone."""
        if self._gpu is not None:  # a pid comes again: those that are long gone are forgotten
            self._gone.extend(member.known)
        one = self._looked.pop(member.serial)
        if one.memory is not None:
            one.memory.cancel()

    def curve(self) -> tuple[GpuUse, ...]:
        """The memory that the crew used on its GPUs."""
        return () if self._gpu is None else tuple(self._gpu.curve)

    def gpu_lines(self) -> list[str]:
        """The last look at the GPUs, for people."""
        return [] if self._gpu is None else self._gpu.lines()

    async def breached(self, breach: Breach) -> None:
        """A GPU holds more than its worker may use."""
        for one in list(self._looked.values()):
            share = self._gpus.share(one.member.birth.slot, self._settings.gpus)
            if breach.where in {self._gpus.title(uuid) for uuid in share}:
                await breached(self._crew, one.member, breach)

    def _pids(self) -> frozenset[int]:
        return frozenset[int]().union(*(one.member.pids() for one in self._looked.values()))

    def _known(self) -> frozenset[int]:
        """Who is, or was a moment ago, of the job: what it left on a GPU is no stranger's."""
        return frozenset(self._gone).union(*(one.member.known for one in self._looked.values()))

    async def _run(self) -> None:
        while True:
            slept_at = self._loop.clock()
            await asyncio.sleep(LOOK_S)
            late_s = self._loop.clock() - slept_at - LOOK_S
            if late_s > HELD_UP_S:
                self._loop.was_held_up(late_s)
            self._orphans.reap()
            for one in list(self._looked.values()):
                one.suspicion.look()
                await self._check(one)
            self._tell_count()

    async def _check(self, one: Looked) -> None:
        """End a worker whose deadline has passed, unless something excuses it."""
        state = self._crew.state
        worker = None if state is None else state.worker(one.member.serial)
        if state is None or worker is None:
            return
        due = deadlines.of_worker(state, worker, self._timeouts)
        now = self._loop.clock()
        if due is not None and self._crew.held_up:  # it may have said so; it has all its time again
            one.excused_until = now + due.timeout_s
            return
        if due is None or now < max(due.at, one.excused_until):
            return
        seen = _overdue_words(due, worker)
        if due.wait in _NAMES:
            verdict = one.suspicion.judge(_NAMES[due.wait])
            if not verdict.kill:
                one.excused_until = now + verdict.extra_s
                return
            seen = verdict.reason or seen
        await self._crew.tell(Overdue(worker.serial, seen))

    def _tell_count(self, *, last: bool = False) -> None:
        if self._crew.state is not None:
            used = None if self._gpu is None else sum(self._gpu.used.values())
            self._tally.tell(self._crew.state, used, last=last)


def _overdue_words(due: Due, worker: Worker) -> str:
    """What it is late with, for people."""
    what = f"timeouts.{due.wait} is {due.timeout_s:g} s"
    if due.wait is Wait.ITEM and worker.begun:
        items = ", ".join(map(str, worker.begun[:8]))
        return f"item {items} took longer than it may: {what}"
    if due.wait is Wait.CHUNK:
        return f"its chunk took longer than it may: {what}"
    return f"no sign of progress: {what}"


async def breached(crew: Watched, member: Member, breach: Breach) -> None:
    """A worker uses more than it may: it is asked to leave, or killed."""
    if breach.limit.asks:
        reason = f"it used {breach.used_bytes} bytes, resources.{breach.limit} is less"
        await crew.tell(Outgrown(member.serial, reason))
    elif member.end.breach is None:
        member.end.breach = breach
        await member.kill()


class _CrewStage:
    """Where the GPUs of a crew are looked at."""

    def __init__(self, loop: Loop, lookout: Lookout) -> None:
        self._loop = loop
        self._lookout = lookout
        self.job: OpenJob = loop.job
        self.listener: Listener = loop.listener
        self.tasks: Tasks = loop.tasks
        self.clock = loop.clock
        self.last_sign_at = 0.0

    @property
    def state(self) -> JobState:
        """The job's."""
        return self._loop.state

    async def feed(self, event: Event) -> None:
        """A limit is one worker's; all else concerns the job."""
        if isinstance(event, LimitExceeded):
            await self._lookout.breached(event.breach)
        else:
            await self._loop.feed(event)


class _MemberStage:
    """Where one worker is looked at."""

    def __init__(self, loop: Loop, crew: Watched, member: Member, timeouts: Timeouts) -> None:
        self._crew = crew
        self._member = member
        self._timeouts = timeouts
        self.job: OpenJob = loop.job
        self.listener: Listener = loop.listener
        self.tasks: Tasks = loop.tasks
        self.clock = loop.clock

    @property
    def _worker(self) -> Worker | None:
        return None if self._crew.state is None else self._crew.state.worker(self._member.serial)

    @property
    def last_sign_at(self) -> float:
        """When it last said something of its items."""
        return 0.0 if self._worker is None else self._worker.silent_since

    @property
    def state(self) -> JobState:
        """Its deadline of startup or silence, as those who judge it know deadlines."""
        state, worker = self._crew.state, self._worker
        if state is None or worker is None:
            return JobState(timeouts=self._timeouts)
        timeouts = self._timeouts
        if timeouts.heartbeat_auto:
            timeouts = replace(timeouts, heartbeat_s=state.cadence.timeout_s)
        due = deadlines.of_worker(state, worker, timeouts)
        if due is None or due.wait not in _NAMES:
            return JobState(timeouts=timeouts)
        armed = (
            Deadlines(startup=due.at) if due.wait is Wait.STARTUP else Deadlines(heartbeat=due.at)
        )
        return JobState(timeouts=timeouts, deadlines=armed)

    async def feed(self, event: Event) -> None:
        """Only its memory is looked at here."""
        if isinstance(event, LimitExceeded):
            await breached(self._crew, self._member, event.breach)
