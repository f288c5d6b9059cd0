"""What a crew makes of each word that it is told."""

from dataclasses import replace
from typing import Any

import pytest

from supervisor.core.batch import machine
from supervisor.core.batch.blame import ALL_FAIL, CLEAN_CHUNKS, OUTSIDE_STRIKES
from supervisor.core.batch.leaving import IDLE_ENDS
from supervisor.core.batch.machine import Left, Turn
from supervisor.core.batch.state import BatchState, Ending, Isolation, Rules
from supervisor.core.batch.words import (
    CrewEnded,
    Dismiss,
    EndWorker,
    Failed,
    Fault,
    Gone,
    HandOut,
    MemorySeen,
    Outgrown,
    Overdue,
    Ready,
    Reported,
    Revived,
    StartWorker,
    StopAsked,
    Word,
)
from supervisor.core.causes import Cause
from supervisor.core.item_events import ItemQuarantined, ItemsSuspected, WorkerReplaced

NOW = 100.0
CRASH: dict[str, Any] = {"cause": Cause.SIGNAL, "reason": "killed by SIGSEGV"}
KILL: dict[str, Any] = {"cause": Cause.SIGNAL, "reason": "SIGKILL", "outside": True}


def gone(serial: int, **how: Any) -> Gone:
    """The end of a worker: in order, if nothing else is said."""
    facts = how or {"cause": Cause.COMPLETED, "reason": "it left", "in_order": True}
    return Gone(serial, **facts)


def told(rules: Rules, count: int, *words: Word, done: int = 0) -> Turn:
    """The last turn of a crew that had so many items, and was told these words."""
    turn = machine.begin(rules, 5, Left(count + done, done, todo=((1, count),)), NOW)
    for word in words:
        turn = machine.step(turn.state, word, NOW)
    return turn


def at_item(item: int, rules: Rules, count: int = 20) -> BatchState:
    """Worker 1 has finished what comes before, and is at an item."""
    before = tuple(range(1, item))
    words = [Ready(1), Reported(1, before, (item,))]
    return told(rules, count, *words).state


def after(state: BatchState, *words: Word) -> Turn:
    """The last turn of a crew."""
    turn = Turn(state)
    for word in words:
        turn = machine.step(turn.state, word, NOW)
    return turn


def test_nothing_to_do_is_over_at_once() -> None:
    """A crew without items needs no worker."""
    turn = machine.begin(Rules(), 1, Left(3, done=2, quarantined=1), NOW)
    assert turn.then == (CrewEnded(None),)


def test_a_whole_small_job() -> None:
    """Started, handed out in one chunk, finished, dismissed, over: and nobody reads of it."""
    rules, words = Rules(size=16), [Ready(1), Reported(1, (), (1,)), Reported(1, (1, 2), ())]
    assert told(rules, 2).then == (StartWorker(1, 0),)
    assert told(rules, 2, *words[:1]).then == (HandOut(1, (1, 2), None),)
    assert told(rules, 2, *words[:2]).then == ()
    assert told(rules, 2, *words).then == (Dismiss(1),)
    last = told(rules, 2, *words, gone(1))
    assert (last.facts, last.then, last.state.done) == ((), (CrewEnded(None),), 2)


LATE: list[Word] = [
    Ready(9),
    Reported(9, (1,), (2,)),
    Failed(9, (1,), Fault.ERROR, "x"),
    MemorySeen(9, 1, 1, 1),
    Outgrown(9, "x"),
    Overdue(9, "x"),
    gone(9),
]


@pytest.mark.parametrize("word", LATE, ids=lambda word: type(word).__name__)
def test_a_word_of_one_that_is_no_more_changes_nothing(word: Word) -> None:
    """Whoever is gone has nothing to say any more."""
    state = at_item(3, Rules())
    assert machine.step(state, word, NOW) == Turn(state)


def test_what_it_says_of_items_that_it_does_not_hold_counts_for_nothing() -> None:
    """Nobody acknowledges what was never given to him, and the same news is no sign of life."""
    state = at_item(3, Rules(size=4))
    assert machine.step(state, Reported(1, (1, 99), (3, 98)), NOW + 5) == Turn(state)
    assert machine.step(state, Reported(1, (), (3,)), NOW + 5) == Turn(state)
    known = machine.step(state, Failed(1, (99,), Fault.ERROR, "x"), NOW + 5)
    assert (known.facts, known.state.groups) == ((), ())


def test_a_crash_suspects_only_the_call_that_had_begun() -> None:
    """The item goes to a new worker alone; what was not begun waits in its old place."""
    turn = after(at_item(3, Rules(size=4)), gone(1, **CRASH))
    replaced = WorkerReplaced(5, 1, Cause.SIGNAL, "killed by SIGSEGV", 2, 0.0)
    assert turn.facts == (
        replaced,
        ItemsSuspected(5, 1, (3,), Cause.SIGNAL, "killed by SIGSEGV"),
    )
    assert turn.then == (StartWorker(2, 0),)
    alone = after(turn.state, Ready(2))
    assert alone.then == (HandOut(2, (3,), None),)
    fine = after(alone.state, Reported(2, (), (3,)), Reported(2, (3,), ()))
    assert fine.then == (HandOut(2, (4, 5, 6, 7), None),)
    bad = after(alone.state, Reported(2, (), (3,)), gone(2, **CRASH, detail="stack"))
    assert bad.facts[1:] == (ItemQuarantined(5, 2, 3, Cause.SIGNAL, "killed by SIGSEGV", "stack"),)
    assert after(bad.state, Ready(3)).then == (HandOut(3, (4, 5, 6, 7), None),)


def test_suspects_that_were_not_begun_are_still_tried_apart() -> None:
    """Their worker died before it came to them: that says nothing, and clears nobody."""
    state = after(at_item(3, Rules(size=4)), gone(1, **CRASH), Ready(2)).state
    turn = after(state, gone(2, **KILL), Ready(3))
    assert (turn.then, turn.state.idle_ends) == ((HandOut(3, (3,), None),), 1)


def test_a_signal_from_elsewhere_is_excused_for_long() -> None:
    """So many times alone are no accident; a success in between clears its name."""
    state = after(at_item(3, Rules(size=4)), gone(1, **KILL)).state
    last = 1 + OUTSIDE_STRIKES
    for serial in range(2, last):
        turn = after(state, Ready(serial), Reported(serial, (), (3,)), gone(serial, **KILL))
        assert [type(fact) for fact in turn.facts] == [WorkerReplaced, ItemsSuspected]
        state = turn.state
    struck = after(state, Ready(last), Reported(last, (), (3,)))
    assert isinstance(after(struck.state, gone(last, **KILL)).facts[-1], ItemQuarantined)
    assert after(struck.state, gone(last, **KILL)).state.strikes == ()
    assert after(struck.state, Reported(last, (3,), ())).state.strikes == ()


def test_what_is_left_of_a_call_was_not_alone() -> None:
    """Of two that were tried together one was heard of: the other has its own try to come."""
    rules = Rules(size=4, batch=4)
    state = told(rules, 20, Ready(1), Reported(1, (), (1, 2, 3, 4)), done=1).state
    state = after(state, gone(1, **CRASH), Ready(2), Reported(2, (), (1, 2))).state
    turn = after(state, Reported(2, (1,), (2,)), gone(2, **CRASH))
    assert turn.facts[1:] == (ItemsSuspected(5, 2, (2,), Cause.SIGNAL, "killed by SIGSEGV"),)


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.BAD_RESULT])
def test_an_exception_harms_nobody(fault: Fault) -> None:
    """The same worker goes on, and tries the item once more when all else is given."""
    state = at_item(3, Rules(size=4), count=5)
    turn = after(state, Failed(1, (3,), fault, "KeyError: 'x'", "Traceback"))
    assert turn.facts == (ItemsSuspected(5, 1, (3,), Cause.POISON_ITEM, "KeyError: 'x'"),)
    again = after(turn.state, Reported(1, (4,), (5,)), Reported(1, (5,), ()))
    assert again.then == (HandOut(1, (3,), None),)
    last = after(again.state, Failed(1, (3,), fault, "KeyError: 'x'", "Traceback"))
    quarantined = ItemQuarantined(5, 1, 3, Cause.POISON_ITEM, "KeyError: 'x'", "Traceback")
    assert (last.facts, last.then) == ((quarantined,), (Dismiss(1),))


@pytest.mark.parametrize(
    ("fault", "cause", "fatal"),
    [
        (Fault.MEMORY, Cause.POISON_ITEM, False),
        (Fault.CUDA_ERROR, Cause.CUDA_ERROR, True),
        (Fault.CUDA_OOM, Cause.CUDA_OOM, True),
    ],
)
def test_what_may_spoil_a_process_is_tried_in_a_new_one(
    fault: Fault, cause: Cause, *, fatal: bool
) -> None:
    """A worker whose call was fatal leaves by itself, and what it had is handed to others."""
    state = at_item(3, Rules(size=4), count=5)
    turn = after(state, Failed(1, (3,), fault, "it broke", fatal=fatal))
    assert turn.facts == (ItemsSuspected(5, 1, (3,), cause, "it broke"),)
    assert turn.state.groups[0].fresh
    if fatal:
        assert turn.then == ()
        left = after(turn.state, gone(1))
        reason = "its last call was fatal: it broke"
        assert left.facts == (WorkerReplaced(5, 1, Cause.COMPLETED, reason, 2, 0.0),)
        assert after(left.state, Ready(2)).then == (HandOut(2, (3,), None),)


def test_too_many_for_a_gpu_is_nobodys_fault() -> None:
    """Half as many at a time, of the call as it was, until many went well; nobody is suspected."""
    rules = Rules(size=32, batch=8)
    call = tuple(range(1, 9))
    oom = Failed(1, call, Fault.CUDA_OOM, "CUDA out of memory", fatal=True)
    turn = told(rules, 200, Ready(1), Reported(1, (), call), oom)
    assert (turn.facts, turn.state.size, turn.state.groups) == ((), 4, ())
    turn = after(turn.state, gone(1), Ready(2))
    assert turn.then == (HandOut(2, (9, 10, 11, 12), 4),)
    state, finished = turn.state, 0
    while state.size == 4:
        chunk = state.workers[0].chunk
        state, finished = after(state, Reported(2, chunk, ())).state, finished + len(chunk)
    assert (state.size, finished) == (8, CLEAN_CHUNKS * 4)
    assert replace(state, size=32) == after(replace(state, size=32), Reported(2, (), ())).state


def test_one_that_is_too_large_by_itself_halves_too() -> None:
    """Down to one, and no further."""
    state = at_item(3, Rules(size=2))
    for size in (1, 1):
        state = after(state, Failed(1, (3,), Fault.CUDA_OOM, "x", fatal=True)).state
        assert state.size == size
        state = replace(state, workers=at_item(3, Rules(size=2)).workers)


def test_a_full_disk_ends_the_crew_and_blames_nobody() -> None:
    """There is no use in trying the rest; the item is as good as untouched."""
    turn = after(at_item(3, Rules(size=4)), Failed(1, (3,), Fault.DISK_FULL, "no space"))
    assert turn.state.ending == Ending(Cause.DISK_FULL, "no space", 1)
    assert (turn.facts, turn.then) == ((), (Dismiss(1),))
    assert after(turn.state, gone(1)).then == (CrewEnded(turn.state.ending),)


def test_a_fault_that_the_job_rules_on_ends_the_crew() -> None:
    """`restart.on` may say what an out-of-memory means: then no item is blamed for it."""
    rules = Rules(size=4, fatal=frozenset({Cause.CUDA_OOM}))
    turn = after(at_item(3, rules), Failed(1, (3,), Fault.CUDA_OOM, "out of memory"))
    assert turn.state.ending == Ending(Cause.CUDA_OOM, "out of memory", 1)
    assert turn.state.pending.take(1)[0] == (3,)
    assert turn.facts == ()


def test_a_worker_that_was_only_slow_goes_on() -> None:
    """It moved while its stacks were taken: its item, and its silence, have their time again."""
    slow = after(at_item(3, Rules(size=4)), Overdue(1, "silent for 9 s")).state
    assert slow.worker(1).ended_for == "silent for 9 s"
    turn = machine.step(slow, Revived(1), NOW + 50)
    worker = turn.state.worker(1)
    assert (worker.ended_for, worker.silent_since, worker.item_since) == ("", NOW + 50, NOW + 50)
    assert (turn.facts, turn.then) == ((), ())
    resting = told(Rules(size=4), 20, Ready(1), Overdue(1, "silent"), Revived(1)).state.worker(1)
    assert (resting.ended_for, resting.item_since) == ("", None)


def test_one_that_has_gone_is_not_revived() -> None:
    """Its end was on the way already."""
    state = after(at_item(3, Rules(size=4)), gone(1, **CRASH)).state
    assert after(state, Revived(1)) == Turn(state)


@pytest.mark.parametrize("cause", [Cause.GPU_HARDWARE, Cause.DISK_FULL, Cause.UNKILLABLE])
def test_an_end_that_is_no_items_fault_ends_the_crew(cause: Cause) -> None:
    """The next attempt begins with the same item, elsewhere or later."""
    state = at_item(3, Rules(size=4))
    turn = after(state, gone(1, cause=cause, reason="why"))
    assert (turn.state.ending, turn.state.groups) == (Ending(cause, "why", 1), ())
    assert turn.state.pending.take(2)[0] == (3, 4)
    assert turn.then == (CrewEnded(turn.state.ending),)


def test_one_that_cannot_begin_ends_the_crew() -> None:
    """Whatever is wrong with the entry is wrong for the next worker too."""
    turn = told(Rules(), 9, gone(1, cause=Cause.BAD_CONFIG, reason="ImportError"))
    assert turn.then == (CrewEnded(Ending(Cause.BAD_CONFIG, "ImportError", 1)),)


@pytest.mark.parametrize("ready", [False, True])
def test_one_that_is_killed_before_its_first_item_is_replaced_twice(*, ready: bool) -> None:
    """The third in a row ends the crew; a finished item in between begins the count anew."""
    turn = told(Rules(), 9)
    for serial in range(1, IDLE_ENDS + 1):
        assert turn.state.ending is None
        begins: list[Word] = [Ready(serial)] if ready else []
        turn = after(turn.state, *begins, gone(serial, **KILL))
    assert turn.then == (CrewEnded(Ending(Cause.SIGNAL, "SIGKILL", IDLE_ENDS)),)
    one = told(Rules(), 9, Ready(1), gone(1, **KILL), Ready(2), Reported(2, (1,), ()))
    assert one.state.idle_ends == 0
    raised = told(Rules(), 9, Ready(1), gone(1, **KILL), Ready(2))
    assert after(raised.state, Failed(2, (1,), Fault.ERROR, "x")).state.idle_ends == 0


@pytest.mark.parametrize("asked", [False, True])
def test_one_that_leaves_before_its_first_item_is_replaced_twice(*, asked: bool) -> None:
    """Also in order: a crew whose workers all come to nothing must not go on for ever."""
    turn = told(Rules(), 9)
    for serial in range(1, IDLE_ENDS + 1):
        assert turn.state.ending is None
        words: list[Word] = [Outgrown(serial, "it is too large")] if asked else []
        turn = after(turn.state, Ready(serial), *words, gone(serial))
    assert turn.state.ending is not None
    assert turn.state.ending.cause is Cause.INCOMPLETE
    why = "it is too large" if asked else "nobody had asked them to"
    assert turn.state.ending.reason.endswith(f"left before their first item: {why}")


def test_one_whose_first_call_was_fatal_has_come_to_something() -> None:
    """It said what was wrong: that is told of its items, and is no riddle about workers."""
    turn = told(Rules(size=4), 9)
    for serial in range(1, IDLE_ENDS + 2):
        failed = Failed(serial, (serial,), Fault.CUDA_ERROR, "it broke", fatal=True)
        turn = after(turn.state, Ready(serial), Reported(serial, (), (serial,)), failed)
        turn = after(turn.state, gone(serial))
        assert (turn.state.ending, turn.state.idle_ends) == (None, 0)


def test_one_that_leaves_between_items_is_replaced_as_often_as_it_takes() -> None:
    """It made progress: somebody's SIGTERM is no fault of the crew."""
    turn = told(Rules(size=4), 40)
    for serial in range(1, 10):
        turn = after(turn.state, Ready(serial), Reported(serial, (serial,), ()), gone(serial))
        assert (turn.state.ending, turn.state.idle_ends) == (None, 0)


def test_one_that_nobody_needs_may_end_as_it_likes() -> None:
    """Crashed on the way out, or never begun: all there was is done all the same."""
    parallel = Rules(size=1, parallel=2)
    state = told(parallel, 2, Ready(1), Ready(2), Reported(1, (1,), ()), Reported(2, (2,), ()))
    turn = after(state.state, gone(1, **CRASH), gone(2, **CRASH))
    assert (turn.state.idle_ends, turn.then) == (0, (CrewEnded(None),))
    late = told(Rules(size=16, parallel=2), 2, Ready(1), Reported(1, (), (1,)))
    late = after(late.state, Reported(1, (1,), ()), Reported(1, (2,), ()))
    assert late.state.workers[1].dismissed
    for how in ({"cause": Cause.STARTUP_TIMEOUT, "reason": "late"}, CRASH):
        assert after(late.state, gone(2, **how)).state.ending is None
    stuck = after(late.state, gone(2, cause=Cause.UNKILLABLE, reason="D state"))
    assert stuck.state.ending is not None


def test_the_first_reason_is_the_one_that_counts() -> None:
    """What follows from an end does not explain it."""
    state = after(at_item(3, Rules(parallel=2)), StopAsked("Ctrl-C"), StopAsked("again")).state
    state = after(state, gone(2, cause=Cause.GPU_HARDWARE, reason="Xid 79")).state
    assert state.ending == Ending(None, "Ctrl-C")


def test_one_that_does_not_die_is_told_even_after_a_stop() -> None:
    """Nobody else may get its GPU, whatever the crew ended for."""
    state = after(at_item(3, Rules()), StopAsked("Ctrl-C")).state
    assert state.ending == Ending(None, "Ctrl-C")
    stuck = after(state, gone(1, cause=Cause.UNKILLABLE, reason="D state"))
    assert stuck.then == (CrewEnded(Ending(Cause.UNKILLABLE, "D state", 1)),)


def test_a_stop_suspects_nobody() -> None:
    """Whoever is killed after the grace was at an item that is only not done; it is no news."""
    turn = after(at_item(3, Rules(size=4)), StopAsked(""))
    assert turn.then == (Dismiss(1),)
    assert turn.state.workers[0].dismissed == "the job stops"
    killed = after(turn.state, gone(1, **KILL))
    assert (killed.facts, killed.state.pending.take(2)[0]) == ((), (3, 4))
    assert killed.then == (CrewEnded(Ending(None, "")),)
    hung = after(turn.state, Overdue(1, "silent"), gone(1, cause=Cause.HANG, reason="hung"))
    assert [type(fact) for fact in hung.facts] == [WorkerReplaced, ItemsSuspected]


def test_one_that_hangs_is_ended_and_its_item_suspected() -> None:
    """It gets nothing more to do, is ended once, and what it says meanwhile still counts."""
    state = at_item(3, Rules(size=4))
    turn = after(state, Overdue(1, "item for 5 s"))
    assert (turn.then, turn.state.workers[0].ended_for) == ((EndWorker(1),), "item for 5 s")
    assert after(turn.state, Overdue(1, "again")) == Turn(turn.state)
    assert after(turn.state, Outgrown(1, "too large")) == Turn(turn.state)
    spoke = after(turn.state, Reported(1, (3, 4, 5, 6), ()))
    assert (spoke.then, spoke.state.done) == ((), 6)
    ended = after(turn.state, gone(1, cause=Cause.HANG, reason="hung"))
    assert ended.facts[1:] == (ItemsSuspected(5, 1, (3,), Cause.HANG, "hung"),)


def test_one_that_is_too_large_leaves_after_its_call_and_it_is_told_why() -> None:
    """Once; the item that it is in is finished."""
    turn = after(at_item(3, Rules(size=4)), Outgrown(1, "it uses 9 GiB"))
    assert turn.then == (Dismiss(1),)
    assert after(turn.state, Outgrown(1, "more")) == Turn(turn.state)
    left = after(turn.state, Reported(1, (3,), ()), gone(1))
    assert left.facts == (WorkerReplaced(5, 1, Cause.COMPLETED, "it uses 9 GiB", 3, 0.0),)


def test_nothing_is_quarantined_where_nothing_ever_worked() -> None:
    """As long as there are others to try, suspects wait; ten first calls that fail are enough."""
    turn = told(Rules(), 100)
    for serial in range(1, ALL_FAIL + 1):
        assert turn.state.ending is None
        turn = after(turn.state, Ready(serial), Reported(serial, (), (serial,)))
        turn = after(turn.state, gone(serial, **CRASH))
    words = "the first 10 calls all failed, the last one with: killed by SIGSEGV"
    assert turn.state.ending == Ending(Cause.BAD_CONFIG, words, ALL_FAIL)
    assert turn.state.quarantined == 0


def test_what_failed_before_does_not_hide_that_nothing_works() -> None:
    """Where only suspects are left and none was ever done, ten quarantined ones are enough."""
    left = Left(30, suspects=tuple(range(1, 31)))
    turn = machine.begin(Rules(), 5, left, NOW)
    for serial in range(1, ALL_FAIL + 1):
        assert turn.state.ending is None
        turn = after(turn.state, Ready(serial), Reported(serial, (), (serial,)))
        turn = after(turn.state, gone(serial, **CRASH))
    assert turn.state.ending is not None
    assert turn.state.ending.reason.startswith("no item ever worked, and 10 failed twice")


def test_poison_ends_it_all_where_the_job_says_so() -> None:
    """With `chunks.poison: fail` the first quarantined item is the last."""
    state = at_item(3, Rules(size=4, poison_fails=True))
    turn = after(state, gone(1, **CRASH), Ready(2), Reported(2, (), (3,)), gone(2, **CRASH))
    assert turn.state.ending is not None
    assert turn.state.ending.cause is Cause.POISON_ITEM
    assert "item 3 is poison, and chunks.poison is fail" in turn.state.ending.reason


def test_the_growth_of_a_worker_ends_its_life_and_is_told() -> None:
    """What stays of its memory over three figures is more than it may gain."""
    state = at_item(3, Rules(size=4, host_growth_bytes=1 << 19))
    for items, used in ((1, 5), (2, 7), (3, 6), (4, 8)):
        turn = after(state, MemorySeen(1, items, used << 20, None))
        state = turn.state
        assert bool(turn.then) == (items == 4)
    (left,) = after(state, Reported(1, (3,), ()), gone(1)).facts
    reason = "its host memory grew by 1.0 MiB over 3 items, chunks.recycle.host_growth is 0.5 MiB"
    assert left == WorkerReplaced(5, 1, Cause.COMPLETED, reason, 3, 0.0, 1 << 20, 0)


def test_a_worker_for_each_item() -> None:
    """Isolation `item`: one, and it goes, which is nothing to tell."""
    rules = Rules(size=16, isolation=Isolation.ITEM)
    turn = told(rules, 2, Ready(1))
    assert turn.then == (HandOut(1, (1,), None),)
    turn = after(turn.state, Reported(1, (), (1,)), Reported(1, (1,), ()))
    assert turn.then == (Dismiss(1),)
    assert after(turn.state, gone(1)).facts == ()


def test_a_job_that_says_so_bisects_what_is_too_much_for_a_gpu() -> None:
    """With `cuda_oom: quarantine_item` the call is to blame, as for any other failure."""
    rules = Rules(size=4, batch=4, shrinks=False)
    oom = Failed(1, (1, 2, 3, 4), Fault.CUDA_OOM, "CUDA out of memory", fatal=True)
    turn = told(rules, 9, Ready(1), Reported(1, (), (1, 2, 3, 4)), oom)
    assert turn.state.size == 4
    assert turn.facts == (ItemsSuspected(5, 1, (1, 2, 3, 4), Cause.CUDA_OOM, "CUDA out of memory"),)


def test_a_cause_that_the_job_calls_fatal_ends_the_crew() -> None:
    """With `restart.on: {signal: give_up}` a crash is the job's end, and no item's fault."""
    state = at_item(3, Rules(size=4, fatal=frozenset({Cause.SIGNAL})))
    turn = after(state, gone(1, **CRASH))
    assert turn.state.ending == Ending(Cause.SIGNAL, "killed by SIGSEGV", 1)
    assert turn.state.groups == ()
