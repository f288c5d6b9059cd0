"""The socket of an attempt: what its processes say is heard, whatever else they do."""

import asyncio
import functools
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.cadence import LONGEST_S
from supervisor.runner.session.said import Said
from supervisor.runner.session.session import NoSession, Session, open_session
from supervisor.watch.progress import Progress
from workers import reports

LIMIT_S = 10.0


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in an event loop of its own."""

    @functools.wraps(test)
    def run(**given: Any) -> None:
        asyncio.run(test(**given))

    return run


class Ears:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self._news = asyncio.Event()

    async def heard(self, count: int) -> list[object]:
        """Wait until so much was told."""
        async with asyncio.timeout(LIMIT_S):
            while len(self.told) < count:
                self._news.clear()
                await self._news.wait()
        return self.told

    def _tell(self, what: object) -> None:
        self.told.append(what)
        self._news.set()

    async def progressed(self, progress: Progress, *, is_sign: bool) -> None:
        """A step was said."""
        self._tell((progress, is_sign))

    async def phase_began(self, name: str, limit_s: float) -> None:
        """A phase began."""
        self._tell((name, limit_s))

    async def phases_ended(self) -> None:
        """No phase is left."""
        self._tell("phases ended")

    async def published(self) -> None:
        """A checkpoint is there."""
        self._tell("published")


warned: list[str] = []


@asynccontextmanager
async def session_at(path: Path) -> AsyncIterator[tuple[Session, Ears]]:
    """A session that is served, closed at the end."""
    session, ears = open_session(path, warned.append), Ears()
    session.serve(ears)
    try:
        yield session, ears
    finally:
        await session.close()


def connect(path: Path, *said: object) -> socket.socket:
    """A process of the worker, which says this."""
    one = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    folder = os.open(path.parent, os.O_PATH)
    try:
        one.connect(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
    for report in said:
        one.send(reports.encode(report))
    return one


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A path that does not fit into an address."""
    return tmp_path / ("long" * 30) / "session"


@in_a_loop
async def test_a_changed_step_alone_is_a_sign(path: Path) -> None:
    """The same step said again shows life, and no progress."""
    async with session_at(path) as (session, ears):
        first = reports.Progressed(3, 9, {"loss": 0.5, "epoch": 1.0})
        with connect(path, reports.Hello(7), first, first):
            told = await ears.heard(2)
        shown = Progress(step=3, total=9, loss=0.5, epoch=1.0)
        assert told == [(shown, True), (shown, False)]
        assert session.said.step == 3


@in_a_loop
async def test_the_first_rank_speaks_for_all(path: Path) -> None:
    """The step of another rank is a sign of progress, and is shown to nobody."""
    async with session_at(path) as (session, ears):
        with (
            connect(path, reports.Hello(7, 0, 2), reports.Progressed(4)),
            connect(path, reports.Hello(8, 1, 2), reports.Progressed(3)),
        ):
            told = await ears.heard(2)
        assert (Progress(), True) in told
        assert (Progress(step=4), True) in told
        assert session.said.step == 4


@in_a_loop
async def test_phases_end_when_the_last_one_does(path: Path) -> None:
    """Two processes compile: progress is expected again when both have, also if one died of it."""
    async with session_at(path) as (_, ears):
        one = connect(path, reports.Hello(7), reports.PhaseBegan(1, "compile"))
        await ears.heard(1)
        two = connect(path, reports.Hello(8, 1), reports.PhaseBegan(1, "compile", 5.0))
        await ears.heard(2)
        one.send(reports.encode(reports.PhaseEnded(1)))
        one.send(reports.encode(reports.Progressed(1)))
        await ears.heard(3)
        two.close()
        told = await ears.heard(4)
        one.close()
        assert told[:2] == [("compile", LONGEST_S), ("compile", 5.0)]
        assert told[3] == "phases ended"


@in_a_loop
async def test_only_who_listens_need_not_be_signalled(path: Path) -> None:
    """A stop is told to everybody, but counts as told only where somebody looks at it."""
    async with session_at(path) as (session, ears):
        with connect(path, reports.Hello(7), reports.Progressed(1)) as one:
            await ears.heard(1)
            assert not session.ask_stop("Ctrl-C", 60.0, 0)
            one.send(reports.encode(reports.Listens()))
            one.send(reports.encode(reports.Progressed(2)))
            await ears.heard(2)
            assert session.ask_stop("Ctrl-C", 60.0, 0)
            asked = reports.decode(one.recv(reports.REPORT_LIMIT_BYTES))
        assert asked == reports.StopAsked("Ctrl-C", 60.0)


@in_a_loop
async def test_who_comes_after_the_stop_is_told_of_it(path: Path) -> None:
    """A rank that connects late leaves with the others."""
    async with session_at(path) as (session, ears):
        session.ask_stop("Ctrl-C", 60.0, 0)
        with connect(path, reports.Hello(7), reports.Progressed(1)) as one:
            await ears.heard(1)
            assert isinstance(reports.decode(one.recv(1 << 16)), reports.StopAsked)


@in_a_loop
async def test_last_words_are_heard_after_the_end(path: Path) -> None:
    """What a process sent just before it died is known when its end is concluded."""
    async with session_at(path) as (session, _):
        error = reports.Errored("cuda_oom", "OutOfMemoryError", "no", step=5, details={"a": [1]})
        with connect(path, reports.Hello(7, 2, 4), reports.Progressed(5), error):
            pass
        await session.drain()
        found = session.said.error
        assert found is not None
        assert (found.kind, found.step, found.rank) == ("cuda_oom", 5, 2)
        assert found.details == (("a", "[1]"),)
        assert session.said.step == 5


@in_a_loop
async def test_the_root_of_several_errors_counts(path: Path) -> None:
    """A rank that reports a broken collective only tells that another one died."""
    async with session_at(path) as (session, _):
        with (
            connect(path, reports.Hello(7, 0), reports.Errored("nccl", "E", "closed by peer")),
            connect(path, reports.Hello(8, 1), reports.Errored("non_finite", "E", "nan")),
        ):
            pass
        await session.drain()
        assert session.said.error is not None
        assert session.said.error.kind == "non_finite"


@in_a_loop
async def test_garbage_harms_nobody(path: Path) -> None:
    """What is no message of ours is dropped, and the next message is heard."""
    junk = [b"\xff\xfe", b"{}", b"[1]", b'{"is":"Progressed","step":"x"}', b'{"is":"Hello"}', b"0"]
    async with session_at(path) as (_, ears):
        with connect(path) as one:
            for packet in junk:
                one.send(packet)
            one.send(reports.encode(reports.Progressed(1)))
            assert await ears.heard(1) == [(Progress(step=1), True)]


@in_a_loop
async def test_the_memory_on_gpus_is_that_of_who_lives(path: Path) -> None:
    """The worker's own figure is the sum over its processes, and unknown where none says."""
    async with session_at(path) as (session, ears):
        assert session.said.own_gpu_bytes() is None
        with (
            connect(path, reports.Hello(7), reports.Progressed(1, gpu_bytes=5)),
            connect(path, reports.Hello(8, 1), reports.Progressed(1, gpu_bytes=7)),
        ):
            await ears.heard(2)
            assert session.said.own_gpu_bytes() == 12


def test_the_socket_goes_with_the_attempt(path: Path) -> None:
    """Nothing lies in the attempt's folder afterwards, and nobody else may connect before."""

    async def modes() -> int:
        async with session_at(path):
            return os.stat(path).st_mode  # noqa: PTH116 - a look at a local folder

    mode = asyncio.run(modes())
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    assert not path.exists()


def test_no_socket_is_no_reason_to_die(tmp_path: Path) -> None:
    """Where it cannot be made, that is told in words."""
    (tmp_path / "file").write_text("")
    with pytest.raises(NoSession, match="no session with the worker"):
        open_session(tmp_path / "file" / "session", warned.append)


@in_a_loop
async def test_the_main_process_decides_whether_being_told_will_do(path: Path) -> None:
    """A helper that listens says nothing of a main process that speaks and does not."""
    async with session_at(path) as (session, ears):
        with (
            connect(path, reports.Hello(7), reports.Progressed(1)),
            connect(path, reports.Hello(8, 1), reports.Listens(), reports.Progressed(1)),
        ):
            await ears.heard(2)
            assert session.ask_stop("Ctrl-C", 60.0, 4242)  # a shell, which says nothing
            assert session.ask_stop("Ctrl-C", 60.0, os.getpid())  # both are of this process


@in_a_loop
async def test_an_error_that_was_outlived_is_no_cause(path: Path) -> None:
    """Who goes on after an error did not die of it; a helper's death is history in a minute."""
    now = [100.0]
    async with session_at(path) as (session, ears):
        session.said = Said(lambda: now[0])
        oom = reports.Errored("cuda_oom", "OutOfMemoryError", "no")
        with connect(path, reports.Hello(7), reports.Progressed(1), oom) as main:
            await ears.heard(1)
            with connect(path, reports.Hello(8), reports.Progressed(3), oom):
                await ears.heard(2)
            main.send(reports.encode(reports.Progressed(2)))
            await ears.heard(3)
            assert session.said.error is not None  # the helper's
            assert session.said.step == 2
            now[0] += 61.0
            main.send(reports.encode(reports.Progressed(3)))
            await ears.heard(4)
            assert session.said.error is None


@pytest.mark.parametrize("step", [0, 7])
@in_a_loop
async def test_the_step_of_an_error_may_come_after_it(path: Path, step: int) -> None:
    """A session's thread sends the last step when the script has reported its error already."""
    async with session_at(path) as (session, ears):
        nan = reports.Errored("non_finite", "E", "nan", step=step)
        with connect(path, reports.Hello(7), nan, reports.Progressed(step), reports.Outcome("x")):
            await ears.heard(1)
        await session.drain()
        assert session.said.error is not None
        assert not session.said.finished


@in_a_loop
async def test_who_has_finished_says_so(path: Path) -> None:
    """Also as the last word of all."""
    async with session_at(path) as (session, _):
        with connect(path, reports.Hello(8), reports.Outcome("finished")):
            pass
        await session.drain()
        assert session.said.finished


@in_a_loop
async def test_one_that_never_pauses_is_not_all_that_is_heard(path: Path) -> None:
    """Between two of its packets the runner's own work gets its turn."""
    turns = 0

    async def work() -> None:
        nonlocal turns
        while turns < 50:
            turns += 1
            await asyncio.sleep(0)

    async with session_at(path) as (_, ears):
        with connect(path, *(reports.Progressed(step) for step in range(100))):
            working = asyncio.ensure_future(work())
            await ears.heard(60)
            assert turns == 50
            await working


@in_a_loop
async def test_a_fault_of_ours_costs_one_voice(path: Path) -> None:
    """Where what was said cannot be taken in, the others are still heard, and it is told."""

    class Deaf(Ears):
        async def published(self) -> None:
            raise OSError(28, "No space left on device")

    warned.clear()
    session, ears = open_session(path, warned.append), Deaf()
    session.serve(ears)
    with (
        connect(path, reports.Hello(7), reports.Published("/c", 1, "disk", 5)),
        connect(path, reports.Hello(8), reports.Progressed(1)),
    ):
        await ears.heard(1)
        await session.drain()
    await session.close()
    assert "not heard any more" in warned[0]
