"""One attempt from its spawn to its conclusion, with a worker that does what the test says."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor.core.causes import Cause
from supervisor.core.effects import SpawnAttempt
from supervisor.core.events import (
    AttemptEnded,
    AttemptSpawned,
    CheckpointVerified,
    WorkerExited,
    WorkerRevived,
)
from supervisor.core.evidence import DeadlineName, Oom
from supervisor.host.processes import ProcessId
from supervisor.process import ChildUnkillable, ExitStatus, SpawnFailed
from supervisor.process.command import SpawnFailure
from supervisor.process.limits import Limits
from supervisor.runner import attempt as module
from supervisor.runner.attempt import Attempt, Tools
from supervisor.runner.gather import Circumstances
from supervisor.runner.isolation import Enclosure
from tests.unit.runner_fakes import FakeLoop

LEFT = ProcessId(4242, 1)


class FakeLive:
    """A worker. It ends when the test, or a kill, says so; `hangs` makes it unkillable."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.gone = asyncio.Event()
        self.child: Any = self
        self.pid, self.start_ticks = os.getpid(), 7
        self.hangs = hangs
        self.ended: asyncio.Future[ExitStatus] = asyncio.get_running_loop().create_future()
        self.left: list[ProcessId] = []
        self.stops: list[float] = []
        self.kills = 0
        self.lets_kills_go = asyncio.Event()
        self.lets_kills_go.set()
        self.evidence: Callable[[], Awaitable[bool]] | None = None

    def ends(self, code: int | None = 0, number: int | None = None) -> None:
        """The main process is gone."""
        if not self.ended.done():
            self.ended.set_result(ExitStatus(code, number))

    async def wait(self) -> ExitStatus:
        """The status, once there is one."""
        return await asyncio.shield(self.ended)

    async def kill(self) -> None:
        """What SIGKILL does."""
        self.kills += 1
        await self.lets_kills_go.wait()
        if self.hangs:
            raise ChildUnkillable(self.pid, [LEFT])
        self.ends(None, 9)

    async def stop(self, grace_s: float) -> None:
        """Note it."""
        self.stops.append(grace_s)

    async def see_out(self) -> None:
        """Nothing is left."""

    async def save_evidence(self, _lines: list[str]) -> bool:
        """Whether it is unharmed by that."""
        return True if self.evidence is None else await self.evidence()

    def members(self) -> list[ProcessId]:
        """Its processes."""
        return []

    def survivors(self) -> list[ProcessId]:
        """Who outlived the kill."""
        return self.left


class Leaf:
    """A control group that nobody is in; it can only be removed."""

    def __init__(self) -> None:
        self.removed = 0

    def members(self) -> list[Any]:
        """Nobody."""
        return []

    def remove(self) -> None:
        """Note it."""
        self.removed += 1


class Stage:
    """An attempt with all that it needs, and the workers that it is going to get."""

    def __init__(self, job: Any) -> None:
        self.loop: Any = FakeLoop()
        self.loop.job = job
        self.loop.forced = asyncio.Event()
        self.loop.spare = lambda _, work: work
        self.next: list[FakeLive | SpawnFailed] = []
        self.leaves: list[Leaf] = []
        self.oom: tuple[Oom | None, int] = (None, 0)
        self.spawning = asyncio.Event()
        self.spawning.set()
        self.entered = asyncio.Event()
        self.survey: Callable[[], Awaitable[Any]] = self._no_news
        self.session: Any = None
        isolation = SimpleNamespace(enclose=self._enclose, opened=lambda *_: self.oom)
        workers = SimpleNamespace(spawn=self._spawn, start_ahead=lambda _: None)
        gpus: Any = SimpleNamespace(tree=frozenset, known=frozenset)
        checkpoints: Any = SimpleNamespace(last_survey=self._survey, unsettled=False)
        disks: Any = SimpleNamespace(full=self._not_full)
        outfit: Any = SimpleNamespace(open_session=lambda _: self.session)
        tools: Any = Tools(checkpoints, gpus, isolation, workers, disks, outfit)
        self.one = Attempt(self.loop, tools)

    def _enclose(self, _number: int) -> Enclosure:
        self.leaves.append(Leaf())
        leaf: Any = self.leaves[-1]
        return Enclosure(leaf, Limits(), 0, memory_held=True)

    @asynccontextmanager
    async def _spawn(self, *_: Any) -> AsyncIterator[FakeLive]:
        self.entered.set()
        await self.spawning.wait()
        live = self.next.pop(0)
        if isinstance(live, SpawnFailed):
            raise live
        yield live
        if live.hangs and not live.ended.done():
            raise ChildUnkillable(live.pid, [LEFT])

    async def _survey(self) -> Any:
        return await self.survey()

    async def _no_news(self) -> tuple[()]:
        return ()

    async def _not_full(self) -> str:
        return ""

    def begin(self, number: int = 1) -> "asyncio.Task[None]":
        """Start attempt `number`."""
        self.loop.state = replace(self.loop.state, attempt=number)
        return asyncio.create_task(self.one.live(SpawnAttempt(number, None, None)))

    async def heard(self, kind: type) -> Any:
        """The next event of a kind; it is taken off the list."""
        found = await self.loop.heard(kind)
        self.loop.fed.remove(found)
        return found

    def fed(self, kind: type) -> list[Any]:
        """What was fed of a kind and not heard yet."""
        return [event for event in self.loop.fed if isinstance(event, kind)]


@pytest.fixture
def play(open_a_job: Any) -> Callable[..., None]:
    """Play a story on a stage."""

    def run(story: Callable[[Stage], Awaitable[None]], **fields: Any) -> None:
        job = open_a_job(**fields)
        job.folder.attempt(1).path.mkdir(parents=True)

        async def main() -> None:
            async with asyncio.timeout(30):
                await story(Stage(job))

        asyncio.run(main())

    return run


def test_an_attempt_is_concluded_when_its_tree_is_gone(play: Any) -> None:
    """Spawned, exited, and only then the cause: whoever is left may still write its log."""

    async def story(stage: Stage) -> None:
        stage.next = [live := FakeLive()]
        living = stage.begin()
        spawned = await stage.heard(AttemptSpawned)
        assert (spawned.pid, spawned.start_ticks) == (live.pid, 7)
        assert stage.one.lives
        live.ends(3)
        assert (await stage.heard(WorkerExited)).exit_code == 3
        concluding = asyncio.create_task(stage.one.conclude())
        await living
        await concluding
        assert (await stage.heard(AttemptEnded)).number == 1
        assert not stage.one.lives

    play(story)


@pytest.mark.parametrize(("number", "permanent"), [(errno.ENOENT, True), (errno.EAGAIN, False)])
def test_a_worker_that_cannot_be_started_is_an_end_too(
    play: Any, number: int, *, permanent: bool
) -> None:
    """With the stage at which it failed; one that may work a moment later is told apart."""

    async def story(stage: Stage) -> None:
        stage.next = [SpawnFailed(SpawnFailure("exec", number, "/nope", ["nope"]))]
        await stage.begin()
        ended = await stage.heard(AttemptEnded)
        assert ended.evidence.spawn_error.permanent is permanent
        assert ended.ran_s == 0.0
        assert stage.loop.fed == []

    play(story)


def test_what_the_kernel_killed_and_who_survived_is_evidence(play: Any) -> None:
    """A grandchild that does not die makes the attempt unkillable."""

    async def story(stage: Stage) -> None:
        stage.oom = Oom(1, of_limit=False, source="the kernel's log"), 0
        stage.next = [live := FakeLive()]
        living = stage.begin()
        await stage.heard(AttemptSpawned)
        live.left = [LEFT]
        live.ends()
        await living
        await stage.one.conclude()
        ended = await stage.heard(AttemptEnded)
        assert ended.cause is Cause.UNKILLABLE
        assert ended.evidence.survivors == (LEFT.pid,)
        assert ended.evidence.oom == stage.oom[0]

    play(story)


def test_one_that_cannot_be_killed_is_given_up(play: Any) -> None:
    """Concluded without its exit; its late end is nothing to the attempt that came after it."""

    async def story(stage: Stage) -> None:
        stage.next = [hangs := FakeLive(hangs=True), second := FakeLive()]
        first = stage.begin()
        await stage.heard(AttemptSpawned)
        await stage.one.kill(capture=False)
        ended = await stage.heard(AttemptEnded)
        assert (ended.cause, ended.evidence.survivors) == (Cause.UNKILLABLE, (LEFT.pid,))
        assert not stage.one.lives
        after = stage.begin(2)
        await stage.heard(AttemptSpawned)
        hangs.ends(None, 9)
        await first
        assert stage.fed(WorkerExited) == []
        assert stage.one.lives
        assert not second.gone.is_set()
        assert [leaf.removed for leaf in stage.leaves] == [1, 0]
        assert stage.one.judge(DeadlineName.HEARTBEAT) is not None
        second.ends(0)
        assert (await stage.heard(WorkerExited)).number == 2
        await after

    play(story)


def test_two_kills_that_fail_are_one_end(play: Any) -> None:
    """A deadline and an impatient person may wait for the same process."""

    async def story(stage: Stage) -> None:
        stage.next = [live := FakeLive(hangs=True)]
        living = stage.begin()
        await stage.heard(AttemptSpawned)
        live.lets_kills_go.clear()
        kills = [asyncio.create_task(stage.one.kill(capture=False)) for _ in range(2)]
        await asyncio.sleep(0)
        assert live.kills == 2
        live.lets_kills_go.set()
        await asyncio.gather(*kills)
        assert len(stage.fed(AttemptEnded)) == 1
        live.ends(None, 9)
        await living

    play(story)


def test_a_kill_that_comes_before_the_worker_waits_for_it(play: Any) -> None:
    """It ends as soon as it is there."""

    async def story(stage: Stage) -> None:
        stage.next = [live := FakeLive()]
        stage.spawning.clear()
        living = stage.begin()
        await stage.entered.wait()
        await stage.one.kill(capture=False)
        stage.spawning.set()
        await living
        assert live.kills == 1
        assert (await stage.heard(WorkerExited)).signal == 9

    play(story)


def test_one_that_is_killed_at_birth_may_be_unkillable(play: Any) -> None:
    """That too is an end, and nobody waits for its exit."""

    async def story(stage: Stage) -> None:
        stage.next = [FakeLive(hangs=True)]
        stage.spawning.clear()
        living = stage.begin()
        await stage.entered.wait()
        await stage.one.kill(capture=False)
        stage.spawning.set()
        await living
        assert (await stage.heard(AttemptEnded)).cause is Cause.UNKILLABLE
        assert stage.loop.fed == []

    play(story)


def test_a_kill_of_nobody_does_not_strike_the_next_attempt(play: Any) -> None:
    """It was meant for the one that had just been given up."""

    async def story(stage: Stage) -> None:
        await stage.one.kill(capture=False)
        stage.next = [live := FakeLive()]
        living = stage.begin()
        await stage.heard(AttemptSpawned)
        assert live.kills == 0
        live.ends()
        await living

    play(story)


@pytest.mark.parametrize(("moves", "unharmed", "killed"), [(1, 1, 0), (0, 1, 1), (1, 0, 1)])
def test_a_hung_one_is_killed_unless_it_moves(
    play: Any, *, moves: int, unharmed: int, killed: int
) -> None:
    """What it prints while its stacks are taken is a sign of life, unless these killed it."""

    async def story(stage: Stage) -> None:
        stage.next = [live := FakeLive()]

        async def capture() -> bool:
            stage.loop.last_sign_at += moves
            return bool(unharmed)

        live.evidence = capture
        living = stage.begin()
        await stage.heard(AttemptSpawned)
        await stage.one.kill(capture=True)
        assert live.kills == killed
        assert len(stage.fed(WorkerRevived)) == 1 - killed
        live.ends()
        await living

    play(story)


def test_a_stop_gives_the_grace_of_the_job(play: Any) -> None:
    """Where there is a worker; else there is nobody to ask."""

    async def story(stage: Stage) -> None:
        await stage.one.stop()
        stage.next = [live := FakeLive()]
        living = stage.begin()
        await stage.heard(AttemptSpawned)
        await stage.one.stop()
        assert live.stops == [stage.loop.state.timeouts.stop_s]
        live.ends()
        await living

    play(story)


def test_without_a_worker_there_is_nothing_to_look_at(play: Any) -> None:
    """And nobody to judge."""

    async def story(stage: Stage) -> None:
        assert stage.one.judge(DeadlineName.HEARTBEAT) is None
        await stage.one.look()
        assert stage.loop.fed == []

    play(story)


def test_a_look_takes_in_what_was_missed(play: Any) -> None:
    """Before a deadline counts, the output is read once more."""

    async def story(stage: Stage) -> None:
        stage.next = [live := FakeLive()]
        living = stage.begin()
        await stage.heard(AttemptSpawned)
        stage.loop.show_progress = lambda *_: None
        stage.loop.job.folder.attempt(1).log.write_text("step 1/2\n")
        before = len(stage.loop.fed)
        await stage.one.look()
        assert len(stage.loop.fed) > before
        live.ends()
        await living

    play(story)


VERIFIED = CheckpointVerified(5, "/c", "file", "verified", 1, 0.0, pinned=True)


@pytest.mark.parametrize("insists", [False, True])
def test_the_last_checkpoint_is_waited_for_unless_somebody_insists(
    play: Any, *, insists: bool
) -> None:
    """A dead disk must not keep a person from leaving."""

    async def story(stage: Stage) -> None:
        answer = asyncio.Event()

        async def survey() -> tuple[CheckpointVerified, ...]:
            await answer.wait()
            return (VERIFIED,)

        stage.survey = survey
        concluding = asyncio.create_task(stage.one.conclude_lost(Circumstances(lost=True)))
        (stage.loop.forced if insists else answer).set()
        await concluding
        assert stage.fed(CheckpointVerified) == ([] if insists else [VERIFIED])
        assert (await stage.heard(AttemptEnded)).cause is Cause.RUNNER_LOST
        answer.set()

    play(story)


def test_of_a_lost_one_the_last_word_says_how_long_it_ran(play: Any) -> None:
    """From its spawn, which the journal has, to the last change of its log; else nothing."""

    async def story(stage: Stage) -> None:
        await stage.one.conclude_lost(Circumstances(lost=True))
        assert (await stage.heard(AttemptEnded)).ran_s == 0.0
        log = stage.loop.job.folder.attempt(1).log
        log.write_text("")
        os.utime(log, (1060.0, 1060.0))
        journal = SimpleNamespace(attempts=lambda _: [SimpleNamespace(spawned_s=1000.0)])
        stage.one._job = replace(stage.loop.job, journal=journal)
        assert stage.one._ran_s(1) == 60.0

    play(story)


def test_the_next_launcher_is_made_ready_beside_the_worker(
    play: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A moment later; when it cannot be, the next attempt says so itself."""
    monkeypatch.setattr(module, "AHEAD_AFTER_S", 0)

    async def story(stage: Stage) -> None:
        asked = asyncio.Event()

        def start_ahead(_live: Any) -> None:
            asked.set()
            raise SpawnFailed(SpawnFailure("fork", errno.EAGAIN, "", ["x"]))

        stage.one._tools.workers.start_ahead = start_ahead
        stage.next = [live := FakeLive()]
        living = stage.begin()
        await asked.wait()
        live.ends()
        await living
        assert [type(event) for event in stage.loop.fed] == [AttemptSpawned, WorkerExited]

    play(story)
