"""From cause and history to a decision: the table, the budget, the backoff."""

import math
from dataclasses import replace
from typing import Any

import pytest

from supervisor.core.causes import Action, Cause
from supervisor.core.conclude import Moment, conclude
from supervisor.core.decide import (
    OVERRIDES,
    RULES,
    Backoff,
    Decision,
    Failure,
    Policy,
    decide,
)
from supervisor.core.evidence import DeadlineName, Evidence, SpawnError
from supervisor.core.gpu import xid_trouble
from supervisor.core.signatures import first_root_error
from supervisor.core.state import JobState

RESUME, OLDER, HOLD = Action.RESUME, Action.RESUME_FROM_OLDER, Action.HOLD
GIVE_UP, FINISH, OTHER = Action.GIVE_UP, Action.FINISH, Action.RETRY_OTHER_GPU

# The default policy as a person reads it: cause -> (first time, counted, when it comes back at
# another step, when it comes back with the same words at the same step), for a job without GPUs.
TABLE = {
    Cause.COMPLETED: (FINISH, False, FINISH, FINISH),
    Cause.STOPPED: (FINISH, False, FINISH, FINISH),
    Cause.EXIT_CODE: (RESUME, True, RESUME, GIVE_UP),
    Cause.SIGNAL: (RESUME, True, RESUME, RESUME),
    Cause.STARTUP_TIMEOUT: (RESUME, True, RESUME, RESUME),
    Cause.HANG: (RESUME, True, RESUME, RESUME),
    Cause.TOTAL_TIMEOUT: (GIVE_UP, False, GIVE_UP, GIVE_UP),
    Cause.HOST_OOM: (RESUME, True, RESUME, RESUME),
    Cause.HOST_MEMORY_LIMIT: (RESUME, True, RESUME, RESUME),
    Cause.CUDA_OOM: (RESUME, True, GIVE_UP, GIVE_UP),
    Cause.GPU_MEMORY_LIMIT: (RESUME, True, GIVE_UP, GIVE_UP),
    Cause.CUDA_ERROR: (RESUME, True, GIVE_UP, GIVE_UP),
    Cause.GPU_HARDWARE: (RESUME, True, HOLD, HOLD),
    Cause.NCCL: (RESUME, True, RESUME, RESUME),
    Cause.SHM: (GIVE_UP, False, GIVE_UP, GIVE_UP),
    Cause.DATALOADER: (RESUME, True, RESUME, RESUME),
    Cause.DISK_FULL: (HOLD, False, HOLD, HOLD),
    Cause.NON_FINITE: (OLDER, True, GIVE_UP, GIVE_UP),
    Cause.BAD_CHECKPOINT: (OLDER, True, OLDER, OLDER),
    Cause.BAD_CONFIG: (GIVE_UP, False, GIVE_UP, GIVE_UP),
    Cause.SPAWN_FAILED: (RESUME, True, RESUME, RESUME),
    Cause.INCOMPLETE: (RESUME, True, RESUME, GIVE_UP),
    Cause.POISON_ITEM: (HOLD, False, HOLD, HOLD),
    Cause.UNKILLABLE: (HOLD, False, HOLD, HOLD),
    Cause.RUNNER_LOST: (RESUME, False, RESUME, RESUME),
    Cause.HOST_REBOOTED: (RESUME, False, RESUME, RESUME),
}


# What is different where the job holds GPUs of ours.
LEASED = {
    Cause.GPU_HARDWARE: (OTHER, True, OTHER, OTHER),
    Cause.UNKILLABLE: (OTHER, True, OTHER, OTHER),
}


def failure(cause: Cause = Cause.SIGNAL, **more: Any) -> Failure:
    """One failure at step 100, now."""
    facts: dict[str, Any] = {"step": 100, "error_line": "boom at 0x1f", "at_s": 1000.0} | more
    return Failure(cause, **facts)


def what(new: Failure, *past: Failure, policy: Policy | None = None) -> Decision:
    """The decision, with a draw in the middle, which is no jitter at all."""
    return decide(policy or Policy(), past, new, 0.5)


@pytest.mark.parametrize("leased", [False, True])
@pytest.mark.parametrize("cause", Cause)
def test_the_default_policy_is_the_one_above(cause: Cause, *, leased: bool) -> None:
    """Every cause has a rule, and it does what the tables in this file say."""
    first, counted, elsewhere, same = (TABLE | LEASED if leased else TABLE)[cause]
    new = failure(cause, leased=leased)
    found = what(new)
    assert (found.action, found.counted) == (first, counted)
    assert what(new, failure(cause, step=99)).action is elsewhere
    assert what(new, failure(cause)).action is same
    assert found.reason


@pytest.mark.parametrize("cause", LEASED)
def test_three_other_gpus_are_tried_and_then_a_person_is_needed(cause: Cause) -> None:
    """Four GPUs in a row that fail are no GPU's fault; with a small budget it ends before that."""
    new = failure(cause, leased=True)
    past = [failure(cause, step=step) for step in range(3)]
    assert what(new, *past[:2]).action is OTHER
    held = what(new, *past)
    assert held == Decision(HOLD, f"{cause} again: it is retried 3 times")
    assert what(new, *past, policy=Policy(budget=2)).action is HOLD
    assert what(new, past[0], failure(), policy=Policy(budget=2)).action is GIVE_UP


@pytest.mark.parametrize(
    ("cause", "first"), [(Cause.GPU_HARDWARE, RESUME), (Cause.UNKILLABLE, HOLD)]
)
def test_without_a_lease_there_is_no_other_gpu_to_go_to(cause: Cause, first: Action) -> None:
    """A job that chose its GPUs itself gets one more try, or a person; the same gpu is no cure."""
    assert what(failure(cause)).action is first
    assert what(failure(cause), failure(cause, leased=True)).action is HOLD


def test_a_full_disk_is_waited_for_and_its_words_say_so() -> None:
    """Other holds need a person; this one goes on by itself, whatever the budget."""
    spent = [failure(step=step) for step in range(9)]
    full = what(failure(Cause.DISK_FULL), *spent)
    assert (full.action, full.counted, full.delay_s) == (HOLD, False, 0.0)
    assert full.reason == "it goes on by itself when there is room; costs no restart"
    assert what(failure(Cause.UNKILLABLE)).reason == "a person is needed"
    asked = Policy(on={Cause.DISK_FULL: "give_up"})
    assert what(failure(Cause.DISK_FULL), policy=asked).reason == "a restart cannot help"


def test_every_cause_has_a_rule() -> None:
    """The closed list of causes and the table of rules name the same."""
    assert set(RULES) == set(Cause)


def test_only_a_restart_that_costs_is_counted_and_delayed() -> None:
    """What ends the job, or says nothing about it, costs no restart and no wait."""
    for cause in Cause:
        found = what(failure(cause, leased=True))
        assert found.counted == (found.delay_s > 0)
        if found.counted:
            assert found.action in {RESUME, OLDER, OTHER}


@pytest.mark.parametrize("budget", [0, 1, 5])
def test_a_budget_of_n_is_n_restarts(budget: int) -> None:
    """The failure after the n-th restart without progress ends the job, not one earlier."""
    policy = Policy(budget=budget)
    past: list[Failure] = []
    for used in range(budget):
        new = failure(step=used)
        found = what(new, *past, policy=policy)
        assert found.action is RESUME
        assert found.reason == f"restart {used + 1} of {budget} without progress"
        past.append(new)
    last = what(failure(step=99), *past, policy=policy)
    assert last == Decision(GIVE_UP, f"{budget} restarts without progress: the budget is used up")


def test_the_budget_is_spent_whatever_the_causes() -> None:
    """Different failures in turn are still no progress."""
    causes = [Cause.HANG, Cause.SIGNAL, Cause.NCCL, Cause.EXIT_CODE, Cause.HOST_OOM]
    past = [failure(cause, step=step) for step, cause in enumerate(causes)]
    assert what(failure(Cause.DATALOADER), *past).action is GIVE_UP
    assert what(failure(Cause.RUNNER_LOST), *past).action is RESUME


def test_a_hang_at_the_same_step_is_tried_for_the_whole_budget() -> None:
    """Where a run hangs says little about why, so only the budget ends it."""
    past = [failure(Cause.HANG)] * 4
    assert what(failure(Cause.HANG), *past).action is RESUME
    assert what(failure(Cause.HANG), *past, failure(Cause.HANG)).action is GIVE_UP


def test_a_window_forgets_old_failures() -> None:
    """With `window`, only failures younger than it count, against budget, limit and backoff."""
    policy = Policy(budget=2, window_s=60.0)
    old = [failure(at_s=100.0), failure(at_s=940.0)]
    young = [failure(at_s=940.1), failure(at_s=999.0)]
    assert what(failure(), *old, policy=policy).reason == "restart 1 of 2 without progress"
    assert what(failure(), *young, policy=policy).action is GIVE_UP
    again = failure(Cause.CUDA_OOM, step=7, at_s=900.0)
    assert what(failure(Cause.CUDA_OOM), again, policy=policy).action is RESUME


def test_a_limit_is_for_its_own_cause_and_says_so() -> None:
    """One CUDA error and one OOM are two first times; the second of one kind is one too many."""
    oom, error = failure(Cause.CUDA_OOM, step=1), failure(Cause.CUDA_ERROR, step=2)
    assert what(error, oom).action is RESUME
    assert what(failure(Cause.CUDA_OOM), oom, error) == Decision(
        GIVE_UP, "cuda_oom again: it is retried once"
    )
    sick = what(failure(Cause.GPU_HARDWARE), failure(Cause.GPU_HARDWARE, step=2))
    assert sick.action is HOLD


@pytest.mark.parametrize(
    ("more", "same"),
    [
        ({}, True),
        ({"error_line": "boom at 0xff00"}, True),
        ({"step": 101}, False),
        ({"error_line": "another"}, False),
        ({"error_line": None}, False),
        ({"cause": Cause.INCOMPLETE}, False),
    ],
)
def test_the_same_failure_at_the_same_step_is_permanent(
    more: dict[str, Any], *, same: bool
) -> None:
    """Equal but for the numbers in the message, and also with another failure in between."""
    facts: dict[str, Any] = {"cause": Cause.EXIT_CODE} | more
    past = failure(**facts)
    found = what(failure(Cause.EXIT_CODE), past, failure(Cause.SIGNAL))
    assert (found.action is GIVE_UP) == same
    if same:
        assert found.reason == "the same failure at the same step (100) twice"


def test_an_unknown_step_equals_no_other() -> None:
    """Where the worker never said how far it was, nobody can say that it was the same step."""
    unknown = failure(Cause.EXIT_CODE, step=None)
    assert what(unknown, unknown).action is RESUME


def test_a_permanent_error_ends_the_job_at_once_unless_the_job_says_otherwise() -> None:
    """A device-side assert fails the same way again; who writes it into `restart.on` is obeyed."""
    permanent = failure(Cause.CUDA_ERROR, permanent=True)
    assert what(permanent) == Decision(GIVE_UP, "permanent: a restart cannot help")
    policy = Policy(on={Cause.CUDA_ERROR: "resume"})
    assert what(permanent, policy=policy).action is RESUME


@pytest.mark.parametrize(
    ("word", "first", "again"),
    [
        ("resume", RESUME, RESUME),
        ("retry_once", RESUME, GIVE_UP),
        ("resume_from_older", OLDER, OLDER),
        ("retry_other_gpu", OTHER, OTHER),
        ("hold", HOLD, HOLD),
        ("give_up", GIVE_UP, GIVE_UP),
    ],
)
def test_the_words_of_restart_on(word: str, first: Action, again: Action) -> None:
    """The job's own word replaces the rule, its determinism included."""
    for cause in (Cause.EXIT_CODE, Cause.SHM, Cause.DISK_FULL, Cause.RUNNER_LOST):
        policy = Policy(on={cause: word})
        assert what(failure(cause), policy=policy).action is first
        assert what(failure(cause), failure(cause), policy=policy).action is again
    assert word in OVERRIDES


def test_another_gpu_on_request_is_tried_for_the_whole_budget() -> None:
    """The job's own word knows no limit but the budget, leased or not."""
    policy = Policy(budget=4, on={Cause.CUDA_ERROR: "retry_other_gpu"})
    new = failure(Cause.CUDA_ERROR, leased=True)
    assert what(new, *[failure(Cause.CUDA_ERROR)] * 3, policy=policy).action is OTHER
    assert what(new, *[failure(Cause.CUDA_ERROR)] * 4, policy=policy).action is GIVE_UP


def test_an_overridden_cause_still_costs_the_budget() -> None:
    """Nobody can ask for endless restarts by overriding a cause that was free."""
    policy = Policy(budget=1, on={Cause.RUNNER_LOST: "resume"})
    assert what(failure(Cause.RUNNER_LOST), failure(), policy=policy).action is GIVE_UP


def test_backoff_grows_to_its_cap() -> None:
    """1, 2, 4 ... seconds, and never longer than `max`, overflow or not."""
    backoff = Backoff(jitter=0.0)
    waits = [backoff.delay_s(n, 0.0) for n in range(1, 12)]
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert backoff.delay_s(10**6, 0.0) == 300
    assert Backoff(initial_s=0.0).delay_s(10**6, 0.9) == 0
    assert Backoff(initial_s=7.0, factor=1.0, jitter=0.0).delay_s(9, 0.3) == 7


def test_jitter_stays_within_its_share() -> None:
    """The draw spreads the wait evenly around its middle, at the cap as well."""
    for failures, middle in ((1, 1.0), (3, 4.0), (99, 300.0)):
        low, high = Backoff().delay_s(failures, 0.0), Backoff().delay_s(failures, 1.0)
        assert math.isclose(low, middle * 0.9)
        assert math.isclose(high, middle * 1.1)
        assert math.isclose(Backoff().delay_s(failures, 0.5), middle)


def test_the_wait_follows_the_failures_in_a_row() -> None:
    """The n-th restart waits for the n-th delay."""
    found = what(failure(), failure(step=1), failure(step=2))
    assert (found.counted, found.delay_s) == (True, 4.0)


MOMENT = Moment(at_s=5.0, ran_s=3.0, draw=0.5)


def test_conclude_joins_cause_and_decision_into_one_fact() -> None:
    """The event holds all that a later reader needs, and the evidence that led to it."""
    seen = Evidence(exit_code=1, step=7, error_line="KeyError: 'x'")
    event = conclude(JobState(attempt=3), Policy(), seen, MOMENT)
    assert (event.number, event.cause, event.action) == (3, Cause.EXIT_CODE, RESUME)
    assert (event.reason, event.decision_reason) == (
        "exit code 1: KeyError: 'x'",
        "restart 1 of 5 without progress",
    )
    assert (event.delay_s, event.counted, event.ran_s, event.at_s) == (1.0, True, 3.0, 5.0)
    assert event.evidence is seen


def test_conclude_knows_whether_the_attempt_held_gpus() -> None:
    """From the evidence: a lease that the job never had leads to no other GPU."""
    seen = Evidence(exit_code=1, gpu_troubles=(xid_trouble("GPU-a", 79, 1.0),))
    state = JobState(attempt=1)
    assert conclude(state, Policy(), seen, MOMENT).action is RESUME
    leased = replace(seen, gpus=("GPU-a",))
    assert conclude(state, Policy(), leased, MOMENT).action is OTHER


def test_conclude_knows_what_is_permanent() -> None:
    """A permanent error decides only where it is the cause; a spawn error knows by itself."""
    assertion = first_root_error(["CUDA error: device-side assert triggered"])
    state, policy = JobState(attempt=1), Policy()
    died = Evidence(exit_code=1, root_error=assertion)
    hung = Evidence(
        signal=9, deadline=DeadlineName.HEARTBEAT, deadline_s=60.0, root_error=assertion
    )
    assert conclude(state, policy, died, MOMENT).action is GIVE_UP
    assert conclude(state, policy, hung, MOMENT).action is RESUME
    for permanent, action in ((True, GIVE_UP), (False, RESUME)):
        failed = Evidence(spawn_error=SpawnError("exec", 2, "no such file", permanent))
        assert conclude(state, policy, failed, MOMENT).action is action


def test_conclude_remembers_the_failures_before() -> None:
    """History comes from the state: the second time at one step is the last."""
    seen = Evidence(exit_code=1, step=7, error_line="KeyError: 'x'")
    earlier = Failure(Cause.EXIT_CODE, 7, "KeyError: 'x'", 1.0)
    state = JobState(attempt=2, failures=(earlier,))
    assert conclude(state, Policy(), seen, MOMENT).action is GIVE_UP


def test_who_fails_where_it_began_may_have_failed_anywhere() -> None:
    """A job whose steps cannot be read is not given up because it began at one checkpoint twice."""
    seen = Evidence(exit_code=1, step=7, resumed_step=7, error_line="ConnectionError")
    unread = Failure(Cause.EXIT_CODE, 7, "ConnectionError", 1.0, at_start=True)
    state = JobState(attempt=2, failures=(unread,))
    assert conclude(state, Policy(), seen, MOMENT).action is RESUME
    # But an attempt that reported this step proves that it is where the next one fails as well.
    reported = replace(state, failures=(replace(unread, at_start=False),))
    assert conclude(reported, Policy(), seen, MOMENT).action is GIVE_UP
    beyond = replace(seen, resumed_step=5)
    assert conclude(state, Policy(), beyond, MOMENT).action is GIVE_UP


def test_finished_items_refund_the_budget() -> None:
    """A batch job that got on since the last failure has all its restarts again."""
    state = JobState(failures=(failure(),) * 5)
    moment = Moment(at_s=2000.0, ran_s=1.0, draw=0.5)
    stuck = conclude(state, Policy(), Evidence(signal=9), moment)
    assert stuck.action is GIVE_UP
    moved = conclude(state, Policy(), Evidence(signal=9, items_done=1), moment)
    assert (moved.action, moved.decision_reason) == (RESUME, "restart 1 of 5 without progress")
