"""The running attempt of a batch job: a crew of workers, carried from its first to its last.

Owns the workers' tasks and the turn: word -> `core.batch.machine.step` -> facts journaled ->
instructions carried out. It decides nothing. To the job's own machine the crew is one worker:
spawned with its first, exited with its last.
"""

import asyncio
import random
import time
from contextlib import suppress
from dataclasses import replace

from supervisor.core.batch import machine
from supervisor.core.batch.state import BatchState, Worker
from supervisor.core.batch.words import (
    CrewEnded,
    Dismiss,
    EndWorker,
    Gone,
    HandOut,
    Instruction,
    Made,
    Revived,
    StartWorker,
    StopAsked,
    Word,
)
from supervisor.core.causes import Cause
from supervisor.core.conclude import Moment, conclude
from supervisor.core.effects import SpawnAttempt
from supervisor.core.events import AttemptSpawned, WorkerExited
from supervisor.core.evidence import DeadlineName, Evidence
from supervisor.core.hang import Verdict
from supervisor.process import SpawnFailed
from supervisor.runner.attempt import spawn_error
from supervisor.runner.crew.lookout import Lookout
from supervisor.runner.crew.member import Member
from supervisor.runner.crew.seen import (
    Surroundings,
    crew_evidence,
    crew_status,
    evidence_of,
    gone,
    only_settled,
)
from supervisor.runner.crew.standby import SPARE_BYTES, available_bytes
from supervisor.runner.crew.tools import CrewTools
from supervisor.runner.gather import Circumstances, gather, write_evidence
from supervisor.runner.loop import Loop

AHEAD_AFTER_S = 0.2  # a cold launcher and a new worker that start at once slow each other down


class Crew:
    """The crew that works, or the last one that did."""

    def __init__(self, loop: Loop, tools: CrewTools) -> None:
        self._loop = loop
        self._job = loop.job
        self._tools = tools
        self._ledger = loop.job.journal.ledger(loop.job.id)
        self._turn = asyncio.Lock()
        self._ended = asyncio.Event()
        self._ended.set()
        self._began_at = 0.0
        self._spawned = False
        self._ends: dict[int, Evidence] = {}
        self._lookout = Lookout(loop, self, tools.gpus, tools.settings)
        self.state: BatchState | None = None
        self.members: dict[int, Member] = {}
        self._making: dict[int, asyncio.Task[Member]] = {}

    @property
    def lives(self) -> bool:
        """Whether there is a worker."""
        return bool(self.members)

    @property
    def held_up(self) -> bool:
        """Whether a full disk keeps this process from hearing its workers."""
        return self._turn.locked() or self._tools.settling.waits

    async def live(self, effect: SpawnAttempt) -> None:
        """Work until nothing is left, or something forbids to go on."""
        self._ended.clear()
        self._ends, self._spawned = {}, False
        self._began_at = self._loop.clock()
        self._tools.settling.lost = self._results_lost
        self._tools.standbys.open()
        self._lookout.start(effect.number)
        rules = self._tools.settings.rules
        if available_bytes() < SPARE_BYTES:
            rules = replace(rules, spare=0)
        turn = machine.begin(rules, effect.number, self._left(), self._began_at)
        async with self._turn:
            await self._take(turn)
        await self._ended.wait()
        self._lookout.end()
        await self._tools.settling.settle()
        self._tools.standbys.close()
        code, signal = crew_status(self.state, self._to_blame())
        await self._loop.feed(WorkerExited(effect.number, code, signal))

    async def stop(self) -> None:
        """Ask all workers to leave after the call that they are in."""
        await self.tell(StopAsked())

    async def kill(self, *, capture: bool) -> None:  # noqa: ARG002 - of a hung worker, `_end_hung`
        """End all workers at once."""
        self._tools.settling.give_up()
        await self.tell(StopAsked())
        await asyncio.gather(*(one.kill() for one in list(self.members.values())))

    async def look(self) -> None:
        """Take in what was missed while this process was held up: the tasks do so by themselves."""

    def judge(self, _name: DeadlineName) -> Verdict | None:
        """A crew as a whole is never called hung: each worker is judged by itself."""
        return None

    async def conclude(self) -> None:
        """The last worker ended: find the cause and decide."""
        state, crew = self._loop.state, self.state
        seen = gather(self._job, state, Circumstances())
        if crew is not None:
            seen = crew_evidence(state, crew, self._to_blame(), self._lookout.curve())
            seen = only_settled(seen, crew, self._tools.settling)
        await self._conclude(seen)

    async def conclude_lost(self, around: Circumstances) -> None:
        """Conclude an attempt whose runner died."""
        await self._conclude(gather(self._job, self._loop.state, around))

    async def tell(self, word: Word) -> None:
        """One turn. Turns never overlap."""
        async with self._turn:
            if self.state is not None and not self._ended.is_set():
                await self._take(machine.step(self.state, word, self._loop.clock()))

    async def _results_lost(self, problem: str) -> None:
        """Nothing can be acknowledged any more, so nothing need be done."""
        await self.tell(StopAsked(problem))

    async def _conclude(self, seen: Evidence) -> None:
        state = self._loop.state
        await self._publish(whole=seen.done is True or bool(seen.items_quarantined))
        write_evidence(self._job.folder.attempt(state.attempt), seen)
        ran_s = self._loop.clock() - self._began_at if self._began_at else 0.0
        moment = Moment(time.time(), ran_s, random.random())  # noqa: S311 - jitter
        await self._loop.feed(conclude(state, self._job.settings.policy, seen, moment))

    async def _publish(self, *, whole: bool) -> None:
        """Write what people read. Who insists on the end need not wait for a dead disk."""
        publishing = self._loop.tasks.start(self._tools.publish(whole=whole))
        insisted = self._loop.tasks.start(self._loop.forced.wait())
        await asyncio.wait({publishing, insisted}, return_when=asyncio.FIRST_COMPLETED)
        insisted.cancel()

    def _left(self) -> machine.Left:
        counts = self._ledger.counts()
        return machine.Left(
            total=counts.total,
            done=counts.done,
            quarantined=counts.quarantined,
            todo=self._ledger.todo(),
            suspects=self._ledger.suspects(),
        )

    def _to_blame(self) -> Evidence | None:
        """The end of the worker by which it is known that the crew cannot go on."""
        ending = None if self.state is None else self.state.ending
        if ending is None or ending.cause is None or ending.serial is None:
            return None
        return self._ends.get(ending.serial)

    async def _take(self, turn: machine.Turn) -> None:
        self.state = turn.state
        for fact in turn.facts:
            await self._loop.feed(fact)
        for one in turn.then:
            self._do(one)

    def _do(self, one: Instruction) -> None:
        if isinstance(one, CrewEnded):
            self._ended.set()
        elif isinstance(one, StartWorker):
            self._loop.tasks.start(self._live(one))
        elif (member := self.members.get(one.serial)) is not None:
            self._do_with(member, one)
        elif (making := self._making.get(one.serial)) is not None:
            making.cancel()  # what it waits for, a GPU for example, need not come

    def _do_with(self, member: Member, one: HandOut | Dismiss | EndWorker) -> None:
        if isinstance(one, HandOut):
            texts = self._ledger.texts(one.items)
            member.hand_out(list(zip(one.items, texts, strict=True)), one.batch)
        elif isinstance(one, EndWorker):
            self._loop.tasks.start(self._end_hung(member))
        elif self._is_ready(member):
            member.dismiss()
        else:  # it need not get ready first
            member.end.dismissed = True
            self._loop.tasks.start(member.kill())

    def _worker(self, serial: int) -> Worker | None:
        return None if self.state is None else self.state.worker(serial)

    def _is_ready(self, member: Member) -> bool:
        worker = self._worker(member.serial)
        return worker is not None and worker.ready

    async def _live(self, order: StartWorker) -> None:
        """One worker's whole life, and the word of its end."""
        began_at = self._loop.clock()
        try:
            member = await self._made(order)
        except SpawnFailed as error:
            self._ends[order.serial] = Evidence(spawn_error=spawn_error(error))
            await self.tell(Gone(order.serial, Cause.SPAWN_FAILED, str(error)))
            return
        if member is None:
            await self.tell(Gone(order.serial, Cause.COMPLETED, "not needed", in_order=True))
            return
        worker = self._worker(order.serial)
        if worker is None or worker.dismissed or worker.ended_for:  # while it was being made
            member.end.killed = member.end.dismissed = True
        self.members[order.serial] = member
        self._lookout.joined(member)
        try:
            await self.tell(Made(order.serial))
            await member.live(self._runs)
        except SpawnFailed as error:
            member.end.spawn_error = spawn_error(error)
        finally:
            del self.members[order.serial]
            self._lookout.left(member)
            self._tools.forget(member)
        oom, kills = self._tools.isolation.opened(member.birth.enclosure, member.known)
        ran_s = self._loop.clock() - began_at
        around = Surroundings(oom, kills, await self._tools.no_room(member), ran_s)
        seen = evidence_of(member, self._worker(order.serial), around)
        word = gone(member, seen, around)
        self._ends[order.serial] = seen
        await self.tell(word)
        ending = None if self.state is None else self.state.ending
        if word.in_order or ending is None or ending.serial != order.serial:
            del self._ends[order.serial]  # only of whom the crew ended by is anything asked later

    async def _made(self, order: StartWorker) -> Member | None:
        """The worker, ready to be started; None if dismissed before. Raises SpawnFailed."""
        number = self._loop.state.attempt
        making = asyncio.ensure_future(self._tools.member(order, number, self.tell))
        self._making[order.serial] = making
        try:
            return await making
        except asyncio.CancelledError:
            worker = self._worker(order.serial)
            if worker is None or not worker.dismissed:
                raise
            return None
        finally:
            del self._making[order.serial]

    async def _runs(self, member: Member) -> None:
        """It is there: tell the job's machine of the first, and have the next one started ahead."""
        child = member.child
        if child is None:
            return
        if not self._spawned:
            self._spawned = True
            spawned = AttemptSpawned(self._loop.state.attempt, child.pid, child.start_ticks)
            await self._loop.feed(spawned)
        self._loop.tasks.start(self._start_ahead(member))

    async def _start_ahead(self, member: Member) -> None:
        """Have the next worker of this slot ready. Until then it guards this one."""
        if not self._tools.warm:
            await asyncio.sleep(AHEAD_AFTER_S)
        with suppress(SpawnFailed):  # then the next worker tries for itself, and says so
            launcher = await self._tools.prepare(member)
            if launcher is not None and member.child is not None and member.end.status is None:
                member.child.guard_by(launcher)

    async def _end_hung(self, member: Member) -> None:
        """Write down where it stands, then end it."""
        worker = self._worker(member.serial)
        folder = self._job.folder.attempt(self._loop.state.attempt)
        items = worker.begun if worker is not None else ()
        place = folder.item(items[0]) if items else folder.worker(member.serial)
        unharmed = await member.save_evidence(place, self._lookout.gpu_lines())
        now = self._worker(member.serial)
        if unharmed and worker is not None and now is not None and now.moved_since(worker):
            await self.tell(Revived(member.serial))
            return
        member.end.stack = place.stack
        await member.kill()
