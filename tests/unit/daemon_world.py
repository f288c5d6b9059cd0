"""A daemon in this process, whose users' shelves and runners do as a test says.

The queue, the shelves and all that the daemon decides are real. A runner is a process that does
nothing until it is told to end; what it would have written into the journal, the test writes.
"""

import asyncio
import os
import shutil
import sqlite3
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.causes import State
from supervisor.daemon import aftermath, daemon, dispatch, hosting, placing, shelving, signals
from supervisor.daemon.contracts import Launch, LaunchFailed, Peer, Refusal, Shelf
from supervisor.daemon.daemon import Daemon, Parts
from supervisor.daemon.gpus import GpuDesk
from supervisor.daemon.retention import FOR_EVER, Keep
from supervisor.daemon.shelves import UserShelves
from supervisor.queue.model import Entry, Phase
from supervisor.queue.plan import Capacity
from supervisor.queue.store import Queue, QueueUnavailable

POLL_S = 0.002
DEADLINE_S = 30.0
USERS = ((4001, "ann"), (4002, "bob"), (4003, "cem"))
ANN, BOB, CEM = (Peer(uid, uid, name) for uid, name in USERS)
SURROUNDINGS = {"env": {"PATH": "/usr/bin:/bin"}, "umask": 18, "limits": {}}
StandIn = Callable[[Mapping[str, Any]], Awaitable[Any]]


@pytest.fixture(name="hurried")
def in_a_hurry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Have the daemon try again soon, and know no systemd."""
    pauses = {
        aftermath: ("UNSTORED_S",),
        dispatch: ("UNREADABLE_S",),
        placing: ("FAULT_S",),
        shelving: ("AGAIN_S", "LONGEST_S"),
        signals: ("LISTENS_S", "LONGEST_S"),
    }
    for module, names in pauses.items():
        for name in names:
            monkeypatch.setattr(module, name, 0.01)
    monkeypatch.setattr(daemon, "START_S", 0.3)
    monkeypatch.setattr(aftermath, "wait_s", lambda _lost: 0.0)
    monkeypatch.setattr(hosting, "SYSTEMD", tmp_path / "no-systemd")


ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.HOLDING, State.STOPPED, State.CANCELLED})


class Gate:
    """Holds up whoever comes, until it is opened; `reached` says that somebody came."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._opened = asyncio.Event()

    def open(self) -> None:
        """Let all pass, now and later."""
        self._opened.set()

    async def passed(self) -> None:
        """Wait until one may go on."""
        self.reached.set()
        await self._opened.wait()


class ToldShelf:
    """A user's real shelf. `asked` has what it was asked; a stand-in answers in its place."""

    def __init__(self, inner: UserShelves) -> None:
        self._inner = inner.of(os.geteuid())
        self.path = self._inner.path
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.stand_ins: dict[str, StandIn] = {}
        self._before: dict[str, Gate] = {}
        self._after: dict[str, Gate] = {}

    def hold(self, question: str, *, after: bool = False) -> Gate:
        """Hold up a question before it is answered, or `after`: done, and the answer on its way."""
        gate = Gate()
        (self._after if after else self._before)[question] = gate
        return gate

    def refuse(self, question: str, why: Refusal) -> None:
        """Refuse a question from now on."""

        async def refused(_arguments: Mapping[str, Any]) -> Any:
            raise why

        self.stand_ins[question] = refused

    def say(self, question: str, answer: Any) -> None:
        """Give this answer from now on, whatever is true."""

        async def said(_arguments: Mapping[str, Any]) -> Any:
            return answer

        self.stand_ins[question] = said

    def mend(self, question: str) -> None:
        """Answer as it is again."""
        del self.stand_ins[question]

    async def ask(self, question: str, arguments: Mapping[str, Any]) -> Any:
        """Answer, when and as the test wants it."""
        self.asked.append((question, dict(arguments)))
        if (before := self._before.get(question)) is not None:
            await before.passed()
        answer = await self.stand_ins.get(question, self._real(question))(arguments)
        if (after := self._after.get(question)) is not None:
            await after.passed()
        return answer

    def _real(self, question: str) -> StandIn:
        return lambda arguments: self._inner.ask(question, arguments)

    async def really(self, question: str, **arguments: Any) -> Any:
        """What the shelf itself says, behind the daemon's back."""
        return await self._inner.ask(question, arguments)

    async def close(self) -> None:
        """It is closed with all others."""


class Runners:
    """A launcher, and its runners: each lives until the test ends it.

    `told` has, for each job, what its runner was told: whether by force. An obedient one stops.
    """

    name = "told"

    def __init__(self) -> None:
        self.launched: list[str] = []
        self.stopped_by: list[str] = []
        self.told: defaultdict[str, list[bool]] = defaultdict(list)
        self.obedient = False
        self.fails = False
        self.gate: Gate | None = None
        self._alive: dict[str, tuple[int, int]] = {}
        self._shelf_of: dict[str, Path] = {}
        self._pids: list[int] = []

    async def launch(self, launch: Launch) -> int:
        """Start a process that ends when its input does."""
        if self.gate is not None:
            await self.gate.passed()
        if self.fails:
            raise LaunchFailed("no process can be started")
        ours, theirs = os.pipe()[::-1]
        cat = shutil.which("cat") or "cat"
        actions = [(os.POSIX_SPAWN_DUP2, theirs, 0)]
        pid = os.posix_spawn(cat, [cat], os.environ, file_actions=actions)  # noqa: ASYNC221 - at once
        os.close(theirs)
        self._pids.append(pid)
        self._alive[launch.job_id] = pid, ours
        self._shelf_of[launch.job_id] = launch.shelf
        self.launched.append(launch.job_id)
        if launch.stopped_by:  # such a one only sees out what is left, and leaves
            self.stopped_by.append(launch.job_id)
            asyncio.get_running_loop().call_soon(self.end, launch.job_id, State.STOPPED)
        return pid

    def lives(self, job: str) -> bool:
        """Whether a job has a runner."""
        return job in self._alive

    def end(self, job: str, state: State | None) -> None:
        """End a runner; it leaves its job in this state. None: it dies, and writes nothing."""
        if state is not None:
            write_state(self._shelf_of[job], job, state)
        _, ours = self._alive.pop(job)
        os.close(ours)

    def seen(self, job: str) -> dict[str, Any]:
        """What the journal and the lock would say of a runner."""
        pid, _ = self._alive.get(job, (None, None))
        state = State.RUNNING
        if pid is None and job in self._shelf_of:
            state = read_state(self._shelf_of[job], job) or state
        said = {"pid": pid, "start_ticks": None, "boot_id": None, "why": ""}
        return {"id": job, "locked_by": pid, "state": state, "ended": state in ENDED} | said

    def hear(self, job: str, *, kill: bool) -> bool:
        """A signal for a runner; whether there is one."""
        if not self.lives(job):
            return False
        self.told[job].append(kill)
        if self.obedient:
            self.end(job, State.STOPPED)
        return True

    def close(self) -> None:
        """No runner ends with its daemon."""

    def end_all(self) -> None:
        """The test is over."""
        for job in list(self._alive):
            self.end(job, None)
        for pid in self._pids:
            with suppress(ChildProcessError):  # the daemon reaped it
                os.waitpid(pid, 0)


class ToldShelves:
    """Every user's shelf, all with the rights of who tests. `barred`: of whom none can be had."""

    def __init__(self, folder: Path, runners: Runners) -> None:
        self._folder = folder
        self._runners = runners
        self._real: dict[int, UserShelves] = {}
        self._told: dict[int, ToldShelf] = {}
        self.barred: dict[int, Refusal] = {}

    def of(self, uid: int) -> Shelf:
        """The shelf of a user, with questions about a runner answered as the runner would be."""
        if uid in self.barred:
            raise self.barred[uid]
        return self.told(uid)

    def told(self, uid: int) -> ToldShelf:
        """The same, for the test."""
        if uid not in self._told:
            real = self._real[uid] = UserShelves(self._folder / str(uid))
            made = self._told[uid] = ToldShelf(real)

            async def seen(arguments: Mapping[str, Any]) -> Any:
                await made.really("record", **arguments)  # or there is no such job
                return self._runners.seen(arguments["id"])

            async def heard(arguments: Mapping[str, Any]) -> Any:
                return {"heard": self._runners.hear(arguments["id"], kill=arguments["kill"])}

            made.stand_ins |= {"runner": seen, "stop": heard}
        return self._told[uid]

    def known(self) -> Sequence[int]:
        """Who has one."""
        return sorted(self._told)

    async def close(self) -> None:
        """The daemon ends, and its threads with it; who tests keeps the shelves."""
        for real in self._real.values():
            await real.close()


class BrokenQueue(Queue):
    """A queue whose disk refuses every change while it is `broken`; `refused` counts them."""

    broken = False
    refused = 0

    def change_all(self, changes: Sequence[tuple[Entry, str, Mapping[str, Any]]]) -> None:
        """Refuse, or do it."""
        if self.broken:
            self.refused += 1
            raise QueueUnavailable("the queue cannot be written: no space left on device")
        super().change_all(changes)


class World:
    """The daemon, its users' shelves and its runners."""

    def __init__(self, folder: Path, cpus: int, queue: type[Queue]) -> None:
        self._folder = folder
        self._cpus = cpus
        self._queue = queue
        self.runners = Runners()
        self.shelves = ToldShelves(folder / "users", self.runners)
        self.daemon: Daemon

    async def begin(self, keep: Keep = FOR_EVER) -> None:
        """Start a daemon where none is."""
        queue = self._queue.open(self._folder)
        capacity = Capacity(self._cpus, 1 << 40)
        parts = (self._folder, queue, self.shelves, self.runners, GpuDesk(), capacity)
        self.daemon = Daemon(Parts(*parts, keep=keep))
        await self.daemon.start()

    async def again(self, keep: Keep = FOR_EVER) -> None:
        """Another daemon after this one."""
        await self.daemon.close()
        await self.begin(keep)

    def shelf(self, peer: Peer) -> ToldShelf:
        """A user's."""
        return self.shelves.told(peer.uid)

    def entry(self, job: str) -> Entry | None:
        """What the daemon has of a job."""
        return self.daemon.roster.get(job)

    def on_disk(self) -> list[Entry]:
        """What another daemon would read."""
        with closing(Queue.open(self._folder)) as queue:
            return queue.entries()

    def is_in(self, phase: Phase, *jobs: str) -> bool:
        """Whether all of these are there, and in that phase."""
        entries = [self.entry(job) for job in jobs]
        return all(one is not None and one.phase is phase for one in entries)

    def journal_state(self, peer: Peer, job: str) -> State | None:
        """How the journal says a job is; None where it has none."""
        return read_state(self.shelf(peer).path, job)

    async def submit(self, peer: Peer, *names: str, **fields: Any) -> list[str]:
        """Submit jobs of one core each; their ids."""
        asked = [self.wanted(name, **fields) for name in names]
        answer = await self.daemon.submit(peer, asked, SURROUNDINGS)
        return [one["id"] for one in answer["jobs"]]

    def wanted(self, name: str, **fields: Any) -> dict[str, Any]:
        """A job as it is submitted."""
        job = {"name": name, "command": ["true"], **fields}
        return {"job": job, "folder": str(self._folder)}

    async def running(self, peer: Peer, *names: str, **fields: Any) -> list[str]:
        """Submit jobs, and wait until their runners are watched."""
        jobs = await self.submit(peer, *names, **fields)
        await until(lambda: all(job in self.daemon.dispatch.runners for job in jobs))
        return jobs

    async def ended(self, peer: Peer, name: str, state: State = State.FAILED) -> str:
        """A job that has run, and ended so."""
        (job,) = await self.running(peer, name)
        self.runners.end(job, state)
        await self.until_in(Phase.ENDED, job)
        return job

    async def until_in(self, phase: Phase, *jobs: str) -> None:
        """Wait until these have come there."""
        await until(lambda: self.is_in(phase, *jobs))


@asynccontextmanager
async def world(folder: Path, *, cpus: int = 4, queue: type[Queue] = Queue) -> AsyncIterator[World]:
    """A daemon that has begun; nothing is left of it afterwards."""
    made = World(folder, cpus, queue)
    try:
        async with asyncio.timeout(2 * DEADLINE_S):
            await made.begin()
            yield made
    finally:
        await made.daemon.close()
        made.runners.end_all()


async def until(predicate: Callable[[], object]) -> None:
    """Wait for what has no event of its own; fails the test when it takes too long."""
    deadline = time.monotonic() + DEADLINE_S
    while not predicate():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {DEADLINE_S} s: {predicate}")
        await asyncio.sleep(POLL_S)


async def idle() -> None:
    """Let everything that is due in the loop be done."""
    for _ in range(50):
        await asyncio.sleep(0)


async def outcome(asked: Awaitable[Any]) -> Any:
    """The words of an answer, or the refusal itself."""
    try:
        answer = await asked
    except Refusal as refusal:
        return refusal
    return answer["words"]


def write_state(shelf: Path, job: str, state: State) -> None:
    """Have the journal say that a job is in this state."""
    with closing(sqlite3.connect(shelf / "journal.sqlite", timeout=10)) as rows, rows:
        rows.execute("UPDATE jobs SET state = ? WHERE id = ?", [str(state), job])


def read_state(shelf: Path, job: str) -> State | None:
    """What the journal says of it."""
    with closing(sqlite3.connect(shelf / "journal.sqlite", timeout=10)) as rows:
        found = rows.execute("SELECT state FROM jobs WHERE id = ?", [job]).fetchone()
    return State(found[0]) if found else None
