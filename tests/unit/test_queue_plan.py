"""Who starts next, and in which words everybody else is told what they wait for."""

import time
from dataclasses import replace

import pytest

from supervisor.core.causes import State
from supervisor.queue.model import Entry, Needs, Wish
from supervisor.queue.plan import AGING_S, PATIENCE_S, Capacity, Plan, fits_ever, plan
from tests.unit.queue_entries import GIB, NOW_S, Cards, entry, situation, started

EIGHT = Needs(cpus=8)
LATER_S = NOW_S + PATIENCE_S + 1000


def ids(found: Plan) -> list[str]:
    """Who starts, in order."""
    return [one.id for one in found.starts]


def why(found: Plan, seq: int) -> str:
    """What the job of that number waits for."""
    return found.waits[f"job-{seq}"]


def test_an_empty_queue() -> None:
    """Nobody waits, nobody starts, no GPU is asked for."""
    cards = Cards(4)
    found = plan(situation(), cards)
    assert (found.starts, dict(found.waits), cards.asked) == ((), {}, 0)


def test_in_order_of_submission() -> None:
    """All that fit start, oldest first, whatever order they are given in."""
    found = plan(situation(entry(3), entry(1), entry(2)), Cards(0))
    assert ids(found) == ["job-1", "job-2", "job-3"]


def test_a_higher_priority_goes_first() -> None:
    """Of two that do not fit together the more important starts, though it came later."""
    found = plan(situation(entry(1, Needs(cpus=9)), entry(2, Needs(cpus=9), priority=1)), Cards(0))
    assert ids(found) == ["job-2"]
    assert why(found, 1) == "waits for 9 CPUs: 7 of 16 are free"


@pytest.mark.parametrize(("hours", "first"), [(2.9, "job-2"), (3.1, "job-1")])
def test_waiting_is_worth_priority(hours: float, first: str) -> None:
    """One level an hour: after three hours it is ahead of a new one that is three levels higher."""
    old = entry(1, Needs(cpus=9), queued_s=NOW_S - hours * AGING_S)
    new = entry(2, Needs(cpus=9), queued_s=NOW_S, priority=3)
    assert ids(plan(situation(new, old), Cards(0))) == [first]


def test_a_resumed_job_waits_anew() -> None:
    """It comes behind one that was submitted later and has waited all the time."""
    resumed = entry(1, Needs(cpus=9), queued_s=NOW_S)
    later = entry(2, Needs(cpus=9), queued_s=NOW_S - 500)
    assert ids(plan(situation(resumed, later), Cards(0))) == ["job-2"]


def test_a_clock_that_was_set_back() -> None:
    """Who began to wait in the future does so now, and is not last for ever."""
    future = entry(1, Needs(cpus=9), queued_s=NOW_S + 1e6)
    later = entry(2, Needs(cpus=9), queued_s=NOW_S)
    assert ids(plan(situation(later, future), Cards(0))) == ["job-1"]


def test_what_does_not_fit_is_passed() -> None:
    """A small job starts beside one that waits for room."""
    found = plan(
        situation(entry(1, Needs(cpus=17 - 4)), entry(2, Needs(cpus=4)), entry(3)), Cards(0)
    )
    assert ids(found) == ["job-1", "job-3"]
    assert why(found, 2) == "waits for 4 CPUs: 3 of 16 are free"


def test_running_jobs_take_their_share() -> None:
    """Cores and memory of what is started are not free."""
    running = started(entry(1, Needs(cpus=15, memory_bytes=60 * GIB)))
    big, heavy = entry(2, Needs(cpus=2)), entry(3, Needs(memory_bytes=5 * GIB))
    found = plan(situation(big, heavy, entry(4), started=(running,)), Cards(0))
    assert ids(found) == ["job-4"]
    assert why(found, 2) == "waits for 2 CPUs: 1 of 16 is free"
    assert why(found, 3) == "waits for 5.0 GiB of memory: 4.0 of 64.0 GiB are free"


def test_a_host_that_became_smaller() -> None:
    """What runs may be more than there is: then nothing is free, and never less than that."""
    running = started(entry(1, Needs(cpus=40, memory_bytes=100 * GIB)))
    waiting = (entry(2), entry(3, Needs(cpus=32)), entry(4, Needs(memory_bytes=80 * GIB)))
    found = plan(situation(*waiting, started=(running,)), Cards(0))
    assert ids(found) == []
    assert why(found, 2) == "waits for 1 CPU: none of 16 is free"
    assert why(found, 3).startswith(
        "cannot run on this host: the job wants 32 CPUs, and jobs may use"
    )
    assert "the job wants 80.0 GiB of memory, and jobs may use 64.0 GiB of this host" in why(
        found, 4
    )


def test_gpus_are_given_and_their_words_passed_on() -> None:
    """The plan names the GPUs; who gets none is told what the taker says."""
    found = plan(situation(entry(1, Needs(gpus=2)), entry(2, Needs(gpus=3))), Cards(4))
    assert [(one.id, one.gpus) for one in found.starts] == [("job-1", ("GPU-0", "GPU-1"))]
    assert why(found, 2) == "waits for 3 GPUs: only 2 of 4 is free"


def test_one_gpu_is_enough_words() -> None:
    """The sentence fits one, too."""
    found = plan(situation(entry(1, Needs(gpus=1))), Cards(4).holding(4))
    assert why(found, 1) == "waits for 1 GPU: only 0 of 4 is free"


RUNNING = started(entry(1, id="train-ab12cd", claims=("/data/runs",)))
STATES = {
    State.FAILED: "which failed: resume it, or cancel this job",
    State.STOPPED: "which was stopped: resume it, or cancel this job",
    State.HOLDING: "which needs a person: see what it holds for and resume it, or cancel this job",
    State.CANCELLED: "which was cancelled and will never be done: cancel this job",
    State.RUNNING: "which ended without success: resume it, or cancel this job",
}


@pytest.mark.parametrize("state", STATES)
def test_after_one_that_did_not_succeed(state: State) -> None:
    """It waits on, and is told what a person can do."""
    found = plan(situation(entry(2, after=("prep-1",)), states={"prep-1": state}), Cards(0))
    assert ids(found) == []
    assert why(found, 2) == f"waits for prep-1, {STATES[state]}"


def test_after_one_that_succeeded() -> None:
    """Then it starts."""
    found = plan(situation(entry(2, after=("a",)), states={"a": State.SUCCEEDED}), Cards(0))
    assert ids(found) == ["job-2"]


def test_after_one_that_runs_or_waits_or_is_unknown() -> None:
    """Each in its own words, and how many more there are."""
    waiting = (
        entry(2, after=("train-ab12cd", "job-3")),
        entry(3, after=("gone-1",)),
        entry(4, after=("job-3",)),
        entry(5, after=("job-5",)),
    )
    found = plan(situation(*waiting, started=(RUNNING,)), Cards(0))
    assert why(found, 2) == "waits for train-ab12cd, which is running, and for 1 more"
    assert why(found, 3).startswith("waits for gone-1, of which the queue knows nothing: cancel")
    assert why(found, 4) == "waits for job-3, which waits itself"
    assert why(found, 5) == "waits for job-5, which is this job: cancel it"


def test_a_held_group() -> None:
    """Its jobs wait with the command that releases them; another user's group of that name runs."""
    waiting = (entry(1, group="sweep"), entry(2, group="sweep", uid=7), entry(3, group="other"))
    held = situation(*waiting, held_groups=frozenset({(1000, "sweep")}))
    found = plan(held, Cards(0))
    assert ids(found) == ["job-2", "job-3"]
    assert why(found, 1) == "group sweep is held: `supervise resume --group sweep`"
    found = plan(replace(held, failures={(1000, "sweep"): 3}), Cards(0))
    said = "group sweep is held after 3 failures in a row: `supervise resume --group sweep`"
    assert why(found, 1) == said


def test_two_jobs_never_write_to_one_folder() -> None:
    """Neither beside one that runs, nor beside one that starts at this moment."""
    waiting = (
        entry(2, claims=("/data/runs", "/x")),
        entry(3, claims=("/y",)),
        entry(4, claims=("/z", "/y")),
    )
    found = plan(situation(*waiting, started=(RUNNING,)), Cards(0))
    assert ids(found) == ["job-3"]
    words = "which is running and writes to the same folder"
    assert why(found, 2) == f"waits for train-ab12cd, {words}, /data/runs"
    assert why(found, 4) == f"waits for job-3, {words}, /y"


@pytest.mark.parametrize("wish", [Wish.STOP, Wish.CANCEL])
def test_what_its_owner_does_not_want(wish: Wish) -> None:
    """It is not started, whatever else would allow it."""
    found = plan(situation(entry(1, wish=wish)), Cards(0))
    assert why(found, 1) == f"does not start: its owner wants it to {wish}"


def patient(one: Entry) -> Entry:
    """A job that has waited for too long at LATER_S, by a little."""
    return replace(one, queued_s=LATER_S - PATIENCE_S - 1 + one.seq / 1000)


def late(*waiting: Entry, **fields: object) -> Plan:
    """The plan at LATER_S, with three of four GPUs with jobs that run."""
    return plan(situation(*waiting, now_s=LATER_S, **fields), Cards(4).holding(3))


def test_who_has_waited_too_long_is_passed_no_more() -> None:
    """What it lacks goes to nobody behind it; the others are told who goes first."""
    big, small = patient(entry(1, Needs(gpus=2))), entry(2, Needs(gpus=1), queued_s=LATER_S)
    found = late(big, small, entry(3, queued_s=LATER_S))
    assert ids(found) == ["job-3"]
    assert why(found, 1) == "waits for 2 GPUs: only 1 of 4 is free"
    assert why(found, 2) == "waits for 1 GPU: job-1 has waited longer, and goes first"


def test_before_that_it_is_passed() -> None:
    """A minute earlier the small one still starts."""
    big = entry(1, Needs(gpus=2), queued_s=LATER_S - PATIENCE_S + 60)
    assert ids(late(big, entry(2, Needs(gpus=1), queued_s=LATER_S))) == ["job-2"]


def test_a_more_important_job_may_still_go_first() -> None:
    """Patience is about those behind it, not about those before."""
    big = patient(entry(1, Needs(gpus=2)))
    urgent = entry(2, Needs(gpus=1), queued_s=LATER_S, priority=50)
    assert ids(late(big, urgent)) == ["job-2"]


def test_what_it_could_have_is_kept_for_it() -> None:
    """While it waits for GPUs nobody takes the memory and the cores that it will need."""
    big = patient(entry(1, Needs(gpus=2, cpus=10, memory_bytes=60 * GIB)))
    heavy = entry(2, Needs(memory_bytes=5 * GIB), queued_s=LATER_S)
    wide = entry(3, Needs(cpus=7), queued_s=LATER_S)
    fits = entry(4, Needs(cpus=6), queued_s=LATER_S)
    assert ids(late(big, heavy, wide, fits)) == ["job-4"]


def test_gpus_are_kept_while_it_waits_for_memory() -> None:
    """Else it would wait in turn for the one and for the other, for ever."""
    big = patient(entry(2, Needs(gpus=1, memory_bytes=60 * GIB)))
    running = started(entry(1, Needs(memory_bytes=10 * GIB)))
    found = late(big, entry(3, Needs(gpus=1), queued_s=LATER_S), started=(running,))
    assert ids(found) == []
    assert why(found, 3) == "waits for 1 GPU: only 0 of 4 is free"


@pytest.mark.parametrize(
    "stuck",
    [
        Needs(cpus=99),
        Needs(memory_bytes=999 * GIB),
        Needs(gpus=9),
        Needs(gpus=9, memory_bytes=60 * GIB),
    ],
)
def test_who_waits_for_a_repair_holds_up_nobody(stuck: Needs) -> None:
    """A job that no other's end would help keeps nothing from others, however long it waits."""
    running = started(entry(1, Needs(memory_bytes=10 * GIB)))
    small = entry(3, Needs(gpus=1, memory_bytes=GIB), queued_s=LATER_S)
    assert ids(late(patient(entry(2, stuck)), small, started=(running,))) == ["job-3"]


def test_who_is_not_ready_keeps_nothing() -> None:
    """One that waits for another job is passed for as long as that takes."""
    big = patient(entry(1, Needs(gpus=2), after=("x",)))
    assert ids(late(big, entry(2, Needs(gpus=1), queued_s=LATER_S))) == ["job-2"]


def test_an_impatient_one_behind_a_new_one_of_the_same_needs() -> None:
    """What was refused to the first, and remembered, still makes the second one heard."""
    new = entry(1, Needs(gpus=2), queued_s=LATER_S, priority=50)
    old = patient(entry(2, Needs(gpus=2)))
    found = late(new, old, entry(3, Needs(gpus=1), queued_s=LATER_S))
    assert ids(found) == []
    assert why(found, 3) == "waits for 1 GPU: job-2 has waited longer, and goes first"


def test_waits_are_in_order_of_turn() -> None:
    """So the place of a job in the queue is its place there."""
    waiting = [entry(seq, Needs(cpus=16), priority=seq % 3) for seq in range(1, 7)]
    assert list(plan(situation(*waiting), Cards(0)).waits) == [
        f"job-{seq}" for seq in (5, 1, 4, 3, 6)
    ]


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        (Needs(cpus=16, memory_bytes=64 * GIB), None),
        (Needs(cpus=17), "the job wants 17 CPUs, and jobs may use 16 of this host"),
        (
            Needs(memory_bytes=65 * GIB),
            "the job wants 65.0 GiB of memory, and jobs may use 64.0 GiB of this host",
        ),
        (Needs(gpus=99), None),
    ],
)
def test_what_can_never_run_here(needs: Needs, said: str | None) -> None:
    """The reason of a refusal; GPUs are another's business."""
    assert fits_ever(needs, Capacity(16, 64 * GIB)) == said


def test_a_long_queue_is_planned_at_once() -> None:
    """10,000 jobs that do not fit, of forty kinds: the taker is asked once for each kind."""
    kinds = [Needs(gpus=1 + n % 8, cpus=1 + n % 5) for n in range(40)]
    waiting = [entry(seq, kinds[seq % 40], priority=seq % 5) for seq in range(10_000)]
    cards = Cards(8).holding(8)
    best_s = 1e9
    for _ in range(3):
        cards.asked = 0
        began_s = time.perf_counter()
        found = plan(situation(*waiting), cards)
        best_s = min(best_s, time.perf_counter() - began_s)
    assert (len(found.waits), len(found.starts), cards.asked) == (10_000, 0, 40)
    assert best_s < 0.5, f"{best_s:.3f} s"  # thirty milliseconds where nobody else computes
