"""From finished to acknowledged: results on disk first, then the ledger, and what may go wrong."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor.batch.results import ResultsProblem
from supervisor.core.batch.state import BatchState, Ending, Rules
from supervisor.core.causes import Cause
from supervisor.core.evidence import Evidence
from supervisor.runner.crew import settling as module
from supervisor.runner.crew.seen import crew_status, only_settled
from supervisor.runner.crew.settling import MOST, MOST_BYTES, Settling


class Disk:
    """Results and ledger in memory, which refuse as often as they are told to."""

    def __init__(self, *refusals: Exception) -> None:
        self.refusals = list(refusals)
        self.said: list[str] = []
        self.done: list[tuple[int, ...]] = []
        self.lines = 0
        self.synced = 0
        self.closed = False
        self.has_started, self.has_refused = asyncio.Event(), asyncio.Event()
        self.started: list[asyncio.Task[Any]] = []
        job: Any = SimpleNamespace(id="job", journal=SimpleNamespace(ledger=lambda _: self))
        results: Any = self
        self.settling = Settling(job, results, self.said.append, self.start)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it beside the test."""
        self.started.append(asyncio.get_running_loop().create_task(work))
        self.has_started.set()

    def add(self, _item: str, _result: bytes) -> None:
        """Take a line."""
        self.lines += 1

    def sync(self) -> int:
        """Write the lines."""
        if self.refusals:
            self.has_refused.set()
            raise self.refusals.pop(0)
        self.synced = self.lines
        return self.synced

    def settle(self, numbers: Sequence[int], length: int) -> None:
        """Acknowledge."""
        assert length == self.synced
        self.done.append(tuple(numbers))

    def close(self) -> None:
        """Let go of the file."""
        self.closed = True


def within(test: Callable[[], Awaitable[None]]) -> None:
    """Run it with a deadline."""

    async def run() -> None:
        async with asyncio.timeout(10):
            await test()

    asyncio.run(run())


def test_many_items_are_one_commit_a_moment_later() -> None:
    """The timer brings them together; what comes later is another one."""

    async def test() -> None:
        disk = Disk()
        for number in (1, 2, 3):
            disk.settling.add(number, "1", b"1")
        assert (disk.settling.unsettled, disk.done) == (3, [])
        await disk.has_started.wait()
        await asyncio.gather(*disk.started)
        assert disk.done == [(1, 2, 3)]
        disk.settling.add(4, "1", b"1")
        await disk.settling.settle()
        assert disk.done == [(1, 2, 3), (4,)]
        disk.settling.close()
        assert disk.closed

    within(test)


@pytest.mark.parametrize(("count", "size"), [(MOST, 1), (2, MOST_BYTES // 2)])
def test_who_brings_more_must_wait_when_much_is_waiting(count: int, size: int) -> None:
    """Many items, or few with long results: memory is bounded by both."""

    async def test() -> None:
        disk = Disk()
        for number in range(count):
            assert not disk.settling.full
            disk.settling.add(number, "1", b"1" * size)
        assert disk.settling.full
        await disk.settling.settle()
        assert not disk.settling.full
        disk.settling.close()

    within(test)


def test_a_full_disk_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said once, tried again, said that it is over; nothing is lost."""
    monkeypatch.setattr(module, "RETRY_S", 0.001)

    async def test() -> None:
        disk = Disk(OSError(28, "No space left"), OSError(28, "No space left"))
        disk.settling.add(1, "1", b"1")
        await disk.settling.settle()
        assert disk.done == [(1,)]
        assert [line.partition(",")[0] for line in disk.said] == [
            "results cannot be written",
            "results can be written again",
        ]
        assert disk.settling.usable
        disk.settling.close()

    within(test)


def test_the_wait_ends_when_it_is_given_up() -> None:
    """What is not settled stays so: it is done again by whoever opens the results next."""

    async def test() -> None:
        disk = Disk(OSError(28, "No space left"))
        disk.settling.add(1, "1", b"1")
        waiting = asyncio.ensure_future(disk.settling.settle())
        await disk.has_refused.wait()
        disk.settling.give_up()
        await waiting
        assert (disk.done, disk.settling.unsettled, disk.settling.usable) == ([], 1, False)
        disk.settling.close()

    within(test)


def test_results_that_are_lost_are_told_once_and_nothing_is_settled_any_more() -> None:
    """Whoever works must hear of it: no item can be acknowledged."""

    async def test() -> None:
        disk = Disk(ResultsProblem("results.jsonl was removed"))
        heard: list[str] = []

        async def lost(problem: str) -> None:
            heard.append(problem)

        disk.settling.lost = lost
        disk.settling.add(1, "1", b"1")
        await disk.settling.settle()
        await disk.settling.settle()
        await asyncio.gather(*disk.started)
        assert heard == disk.said == ["results.jsonl was removed"]
        assert (disk.done, disk.settling.unsettled, disk.settling.usable) == ([], 1, False)
        disk.settling.close()

    within(test)


@pytest.mark.parametrize("problem", ["", "results.jsonl was removed"])
def test_what_is_not_acknowledged_is_not_done(problem: str) -> None:
    """Promise 9: all items finished, one of them not on disk: the job is not done."""
    state = BatchState(Rules(), 1, total=3, done=3, done_here=2)
    settling: Any = SimpleNamespace(unsettled=1, problem=problem)
    whole = Evidence(exit_code=0, done=True, step=3, items_done=2)
    seen = only_settled(whole, state, settling)
    assert (seen.done, seen.step, seen.items_done) == (None if problem else False, 2, 1)
    assert seen.nothing_works == problem
    assert seen.done_detail == "2 of 3 items done"
    settled: Any = SimpleNamespace(unsettled=0, problem="")
    assert only_settled(whole, state, settled) is whole


def test_a_crew_that_found_the_disk_full_has_not_ended_well() -> None:
    """Its workers left in order, but exit code 0 would say that the job is done."""
    full = BatchState(Rules(), 1, ending=Ending(Cause.DISK_FULL, "No space left"))
    assert crew_status(full, None) == (1, None)
    assert crew_status(BatchState(Rules(), 1), None) == (0, None)
    assert crew_status(None, None) == (0, None)
    assert crew_status(full, Evidence(exit_code=None, signal=9)) == (None, 9)
