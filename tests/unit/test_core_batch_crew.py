"""Who works at what: sizes, shares, spare workers, and when one has to leave."""

from dataclasses import replace

import pytest

from supervisor.core.batch import machine
from supervisor.core.batch.crew import MOST_AHEAD
from supervisor.core.batch.machine import Left, Turn
from supervisor.core.batch.state import BatchState, Isolation, Rules
from supervisor.core.batch.words import (
    Dismiss,
    Failed,
    Fault,
    Gone,
    HandOut,
    Instruction,
    Ready,
    Reported,
    StartWorker,
    StopAsked,
    Word,
)
from supervisor.core.causes import Cause

NOW = 100.0


def begun(rules: Rules, count: int) -> Turn:
    """A crew that has so many items, none done."""
    return machine.begin(rules, 1, Left(count, todo=((1, count),)), NOW)


def after(state: BatchState, *words: Word, now: float = NOW) -> Turn:
    """The last turn of a crew."""
    turn = Turn(state)
    for word in words:
        turn = machine.step(turn.state, word, now)
    return turn


def left(serial: int) -> Gone:
    """A worker went as it was asked to."""
    return Gone(serial, Cause.COMPLETED, "it left", in_order=True)


def sizes(turn: Turn) -> list[int]:
    """How many items were handed out, to each."""
    return [len(one.items) for one in turn.then if isinstance(one, HandOut)]


def test_no_more_workers_than_there_is_work_for() -> None:
    """Three items need three workers of four, chunks of two need two, and spare ones count too."""
    started = [StartWorker(serial, serial - 1) for serial in range(1, 5)]
    assert list(begun(Rules(parallel=4), 3).then) == started[:3]
    assert list(begun(Rules(parallel=4), 9).then) == started
    chunks = Rules(parallel=4, size=2, isolation=Isolation.CHUNK)
    assert list(begun(chunks, 3).then) == started[:2]
    assert after(begun(chunks, 3).state, Ready(1)).then == (HandOut(1, (1, 2), None),)
    assert list(begun(replace(chunks, parallel=1, spare=1), 9).then) == started[:2]


def test_what_is_left_is_shared() -> None:
    """Nobody takes a whole chunk while there are others: all end at about the same time."""
    state = begun(Rules(size=16, parallel=4), 20).state
    handed = []
    for serial in range(1, 5):
        turn = after(state, Ready(serial))
        state, handed = turn.state, handed + sizes(turn)
    assert handed == [5, 4, 3, 2]


def test_one_that_is_fast_has_more_lying_with_it() -> None:
    """As much as it does in a moment, up to a bound; from the time at which it was ready."""
    state = begun(Rules(size=4), 100_000).state
    state = after(state, Ready(1), now=NOW + 60).state
    for seconds, most in ((1, 4), (2, 4), (3, MOST_AHEAD)):
        worker = replace(state.workers[0], finished=79 if seconds < 3 else 10**6)
        slow = replace(state, workers=(worker,))
        turn = after(slow, Reported(1, worker.chunk, ()), now=NOW + 60 + seconds)
        assert sizes(turn) == [most]
    early = replace(state, workers=(replace(state.workers[0], finished=396),))
    assert sizes(after(early, Reported(1, (1, 2, 3, 4), ()), now=NOW + 61)) == [20]


def test_calls_are_full_where_they_can_be() -> None:
    """A chunk of ten in calls of eight is eight at a time; the last call has what is left."""
    turn = after(begun(Rules(size=10, batch=8), 19).state, Ready(1))
    assert turn.then == (HandOut(1, tuple(range(1, 9)), 8),)
    turn = after(turn.state, Reported(1, tuple(range(1, 9)), ()))
    assert sizes(turn) == [8]
    assert sizes(after(turn.state, Reported(1, tuple(range(9, 17)), ()))) == [3]


def test_one_that_may_do_so_many_items_is_given_no_more() -> None:
    """With `recycle.items: 3` the third is its last, and it is told so."""
    turn = after(begun(Rules(size=2, items=3), 9).state, Ready(1))
    turn = after(turn.state, Reported(1, (1, 2), ()))
    assert sizes(turn) == [1]
    turn = after(turn.state, Reported(1, (3,), ()))
    assert turn.then == (Dismiss(1),)
    (fact,) = after(turn.state, left(1)).facts
    assert fact.reason == "it finished 3 items, chunks.recycle.items is 3"


def test_age_counts_from_when_it_was_ready_and_needs_one_item() -> None:
    """Whoever takes long to load its model is not sent home for that."""
    state = after(begun(Rules(size=2, age_s=10.0), 9).state, Ready(1), now=NOW + 60).state
    assert after(state, Reported(1, (), (1,)), now=NOW + 90).then == ()
    assert sizes(after(state, Reported(1, (1,), (2,)), now=NOW + 70)) == [1]
    turn = after(state, Reported(1, (1,), (2,)), now=NOW + 71)
    assert turn.then == (Dismiss(1),)
    assert turn.state.workers[0].dismissed == "it is 11 s old, chunks.recycle.age is 10 s"


def test_a_stop_starts_nobody_and_dismisses_everybody() -> None:
    """Those that are not ready too."""
    state = after(begun(Rules(parallel=2, size=1), 9).state, Ready(1), StopAsked("Ctrl-C"))
    assert state.then == (Dismiss(1), Dismiss(2))
    assert after(state.state, left(1)).then == ()


def test_a_spare_one_waits_and_takes_over_at_once() -> None:
    """Ready before the other ends, idle until then; never are two at work."""
    rules = Rules(size=2, spare=1, items=2)
    turn = after(begun(rules, 9).state, Ready(1), Ready(2))
    assert turn.then == ()
    turn = after(turn.state, Reported(1, (1, 2), ()))
    assert turn.then == (Dismiss(1), HandOut(2, (3, 4), None))
    assert after(turn.state, left(1)).then == (StartWorker(3, 0),)


def test_one_without_work_stays_as_long_as_another_may_fail() -> None:
    """Starting anew costs more than waiting; when all is done it goes."""
    turn = after(begun(Rules(size=1, parallel=2), 2).state, Ready(1), Ready(2))
    turn = after(turn.state, Reported(1, (1,), ()))
    assert turn.then == ()
    failed = after(turn.state, Failed(2, (2,), Fault.ERROR, "x"))
    assert failed.then == (HandOut(1, (2,), None),)
    assert after(turn.state, Reported(2, (2,), ())).then == (Dismiss(1), Dismiss(2))
    spare = after(begun(Rules(size=2, spare=1), 2).state, Ready(1), Ready(2))
    assert spare.then == ()
    crashed = after(turn.state, Reported(2, (), (2,)), Gone(2, Cause.SIGNAL, "SIGSEGV"))
    assert crashed.then == (Dismiss(1), StartWorker(3, 1))


def test_one_without_work_makes_room_where_a_suspect_needs_a_new_worker() -> None:
    """It may not try what killed another, and while it stays nobody else can."""
    turn = after(begun(Rules(size=1, parallel=3), 3).state, Ready(1), Ready(2), Ready(3))
    turn = after(turn.state, Reported(1, (1,), ()), Reported(2, (), (2,)))
    assert turn.then == ()
    turn = after(turn.state, Gone(2, Cause.SIGNAL, "killed by SIGSEGV"))
    assert turn.then == (Dismiss(1), StartWorker(4, 1))


@pytest.mark.parametrize("isolation", [Isolation.CHUNK, Isolation.ITEM])
def test_one_that_lives_for_a_chunk_tries_no_suspects_after_it(isolation: Isolation) -> None:
    """It leaves, and the suspects get a worker of their own."""
    turn = after(begun(Rules(size=1, isolation=isolation), 1).state, Ready(1))
    turn = after(turn.state, Failed(1, (1,), Fault.ERROR, "x"))
    expected: tuple[Instruction, ...] = (Dismiss(1),)
    assert turn.then == expected
    turn = after(turn.state, left(1), Ready(2))
    assert turn.then == (HandOut(2, (1,), None),)
    assert after(turn.state, Reported(2, (1,), ())).then == (Dismiss(2),)


def test_a_million_items_cost_no_more_than_a_few() -> None:
    """Where every second one is done, what is left is many ranges, and none is copied."""
    odd = tuple((number, number) for number in range(1, 1_000_000, 2))
    state = machine.begin(Rules(), 1, Left(1_000_000, 500_000, todo=odd), NOW).state
    ranges = state.pending.ranges
    for word in (Ready(1), Reported(1, tuple(range(1, 9, 2)), (9,)), Gone(1, Cause.HANG, "x")):
        state = after(state, word).state
        assert state.pending.ranges is ranges
        assert len(state.pending.returned) < 20
