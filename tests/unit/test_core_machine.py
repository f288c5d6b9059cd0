"""The behaviour of a job, row by row of the table of transitions."""

from dataclasses import replace

import pytest

from supervisor.core.causes import Action, Cause, State
from supervisor.core.deadlines import Deadlines
from supervisor.core.effects import ChooseCheckpoint, EndRun
from supervisor.core.events import (
    AttemptSpawned,
    BackoffElapsed,
    CheckpointChosen,
    DeadlineDeferred,
    Event,
    GpusAwaited,
    GpusSetAside,
    GpuTroubleSeen,
    HoldRequired,
    JobCancelled,
    LimitExceeded,
    ProgressBegan,
    SignSeen,
    SpaceReturned,
    WorkerExited,
    WorkerRevived,
)
from supervisor.core.every_event import EVENTS
from supervisor.core.evidence import DeadlineName
from supervisor.core.machine import TRANSITIONS, IllegalEvent, step
from supervisor.core.state import JobState
from tests.unit.core_batch_rows import BATCH_EVENTS, BATCH_ROWS
from tests.unit.core_cancel_rows import CANCEL, CANCEL_ROWS, CANCELLED
from tests.unit.core_phase_rows import PHASE_ROWS
from tests.unit.core_rows import (
    BACKING_OFF,
    BASE,
    CHANGED,
    EXITED,
    FAILED,
    FALLEN,
    FORCED,
    FROM_300,
    FROM_ZERO,
    HARD,
    HOLDING,
    LEASED,
    NOW,
    PAST,
    QUEUED,
    ROWS,
    RUNNING,
    STARTED,
    STOP,
    STOPPED,
    STOPPING,
    SUCCEEDED,
    Row,
    ended,
    passed,
    verified,
)

S = State


def named(row: Row) -> str:
    """State and event of a row, for the test's name."""
    return f"{row[0].phase}-{type(row[1]).__name__}"


@pytest.mark.parametrize("row", [*ROWS, *BATCH_ROWS, *PHASE_ROWS, *CANCEL_ROWS], ids=named)
def test_each_row_of_the_table(row: Row) -> None:
    """State and event lead to exactly this state and these effects, and the table says so."""
    state, event, changes, effects = row
    after, found = step(state, event, NOW)
    assert after == replace(state, **changes)
    assert found == effects
    assert after.phase in TRANSITIONS[state.phase, type(event)][1]


def test_every_row_and_every_target_is_tried() -> None:
    """No row of the table, and no state that a row declares, is without a case above."""
    tried = {
        (state.phase, type(event), changes.get("phase", state.phase))
        for state, event, changes, _ in [*ROWS, *BATCH_ROWS, *PHASE_ROWS, *CANCEL_ROWS, *HELD]
    }
    declared = {(*key, target) for key, (_, targets) in TRANSITIONS.items() for target in targets}
    assert tried == declared


# Nothing verifies although there was something: (state, event, words of the reason)
HELD_WHY: list[tuple[JobState, CheckpointChosen, str]] = [
    (replace(QUEUED, ceiling=None), CheckpointChosen(None, None, 3), "none of 3 checkpoints"),
    (replace(QUEUED, ceiling=None), FROM_ZERO, "(the last at step 400) are gone"),
    (QUEUED, FROM_ZERO, "no checkpoint before step 400"),
    (
        replace(QUEUED, best_checkpoint=None, disk_checkpoint=None, ceiling=None),
        CheckpointChosen(None, None, 1),
        "none of 1 checkpoints",
    ),
]
HELD: list[Row] = [
    (state, event, {"phase": S.HOLDING}, (EndRun(S.HOLDING),)) for state, event, _ in HELD_WHY
]


@pytest.mark.parametrize(("state", "event", "words"), HELD_WHY)
def test_it_holds_where_nothing_verifies(
    state: JobState, event: CheckpointChosen, words: str
) -> None:
    """A job that had a checkpoint never starts from zero by itself; it says why it waits."""
    after, effects = step(state, event, NOW)
    assert (after.phase, after.attempt, effects) == (S.HOLDING, 3, (EndRun(S.HOLDING),))
    assert words in after.why
    assert "does not start from zero" in after.why


STATES = [QUEUED, RUNNING, STOPPING, BACKING_OFF, STOPPED, HOLDING, FAILED, SUCCEEDED]
STATES += [CANCELLED]
ANY_EVENT: list[Event] = [
    STARTED,
    CHANGED,
    verified(1),
    FROM_ZERO,
    HoldRequired(Cause.DISK_FULL, "full"),
    LEASED,
    GpusAwaited("none is free"),
    GpusSetAside(("GPU-a",)),
    SpaceReturned(),
    AttemptSpawned(3, 8, 9),
    ProgressBegan(3),
    SignSeen(),
    passed(DeadlineName.STOP),
    DeadlineDeferred(DeadlineName.HEARTBEAT, 3.0),
    LimitExceeded(3, HARD),
    WorkerRevived(3),
    GpuTroubleSeen(3, FALLEN),
    STOP,
    WorkerExited(3, 0, None),
    ended(Action.RESUME),
    BackoffElapsed(),
    CANCEL,
    *BATCH_EVENTS,
]  # fmt: skip -- one list


def test_what_the_table_does_not_know_is_illegal() -> None:
    """Such an event raises, naming itself and the state; the state is a value, so it stays."""
    assert {type(event) for event in ANY_EVENT} == set(EVENTS.values())
    for state in STATES:
        for event in ANY_EVENT:
            if (state.phase, type(event)) in TRANSITIONS:
                continue
            with pytest.raises(IllegalEvent) as raised:
                step(state, event, NOW)
            assert type(event).__name__ in str(raised.value)
            assert state.phase in str(raised.value)


def test_nothing_leads_out_of_cancelled() -> None:
    """Whatever comes, also a runner; and a running attempt, or a success, is not cancelled."""
    leading = {target for (phase, _), (_, targets) in TRANSITIONS.items()
               if phase is S.CANCELLED for target in targets}  # fmt: skip
    assert leading == {S.CANCELLED}
    untouched = {S.RUNNING, S.STOPPING, S.SUCCEEDED, S.CANCELLED}
    assert {phase for phase in S if (phase, JobCancelled) not in TRANSITIONS} == untouched


# (what the attempt saved, the ceiling before, cause, the ceiling after)
CEILINGS = [
    (None, None, Cause.BAD_CHECKPOINT, 300),  # its checkpoint could not be loaded
    (None, 400, Cause.BAD_CHECKPOINT, 300),  # nor the one before it
    (350, 400, Cause.BAD_CHECKPOINT, 400),  # it had loaded: another file was broken
    (None, None, Cause.NON_FINITE, 300),  # sick before it saved
    (500, None, Cause.NON_FINITE, 500),  # sick after it saved: that one may be sick too
    (350, 400, Cause.NON_FINITE, 350),  # the same below a ceiling
]


@pytest.mark.parametrize(("saved", "before", "cause", "after"), CEILINGS)
def test_where_the_ceiling_comes_down_to(
    saved: int | None, before: int | None, cause: Cause, after: int
) -> None:
    """Below what could not be loaded, or below the newest of a sick run."""
    state = replace(EXITED, saved_step=saved, ceiling=before)
    assert step(state, ended(Action.RESUME_FROM_OLDER, cause), NOW)[0].ceiling == after


def test_the_ceiling_holds_until_those_checkpoints_are_written_anew() -> None:
    """A restart in between must not fall back to the sick checkpoints, nor to copies of them."""
    state = replace(QUEUED, ceiling=300, best_checkpoint=400)
    for event, ceiling in [
        (CheckpointChosen("c200", 200), 300),
        (verified(250), 300),
        (verified(300), 400),  # what was at 300 is replaced; what was at 400 is not
        (verified(400), None),
    ]:
        state, _ = step(state, event, NOW)
        assert state.ceiling == ceiling
        assert state.best_checkpoint == 400
        assert state.failures == PAST


def test_a_new_try_by_a_person_forgets_the_ceiling_that_led_to_the_hold() -> None:
    """Whoever looked, and runs the job again, gets the newest checkpoint tried once more."""
    held, _ = step(QUEUED, FROM_ZERO, NOW)
    assert step(held, STARTED, NOW)[1] == (ChooseCheckpoint(None),)
    held, _ = step(QUEUED, HoldRequired(Cause.DISK_FULL, "full"), NOW)
    assert step(held, STARTED, NOW)[1] == (ChooseCheckpoint(400),)


def run(state: JobState, *events: Event) -> JobState:
    """The state after a few events."""
    for event in events:
        state, _ = step(state, event, NOW)
    return state


def test_a_stop_survives_its_runner_but_the_job_goes_on() -> None:
    """The stopped attempt is told as stopped, also by the runner that comes after a crash."""
    state = run(RUNNING, STOP, WorkerExited(3, 0, None), STARTED)
    assert (state.stop_requested, state.exit_code, state.phase) == (True, 0, S.RUNNING)
    state = run(state, ended(Action.FINISH, Cause.STOPPED), BackoffElapsed(), FROM_300)
    assert (state.phase, state.attempt, state.stop_requested) == (S.RUNNING, 4, False)


def test_a_stop_after_the_exit_explains_nothing() -> None:
    """A crash stays a crash when the stop came a moment later; the job stops all the same."""
    state = run(RUNNING, WorkerExited(3, 1, None), STOP)
    assert not state.stop_requested
    after, effects = step(state, ended(Action.RESUME, counted=True), NOW)
    assert (after.phase, len(after.failures), effects) == (S.STOPPED, 2, (EndRun(S.STOPPED),))


@pytest.mark.parametrize(
    "late",
    [LimitExceeded(2, HARD), GpuTroubleSeen(2, FALLEN), WorkerRevived(2), WorkerExited(2, 0, None)],
)
def test_what_is_heard_of_an_earlier_attempt_is_nothing_to_this_one(late: Event) -> None:
    """One that could not be killed is still looked at while the next one runs elsewhere."""
    for state in (RUNNING, STOPPING):
        if (state.phase, type(late)) in TRANSITIONS:
            assert step(state, late, NOW) == (state, ())


def test_the_first_deadline_is_the_one_that_counts() -> None:
    """A total that led to a stop, whose grace was over, was a total."""
    state = run(RUNNING, passed(DeadlineName.TOTAL), passed(DeadlineName.STOP))
    assert state.fired is DeadlineName.TOTAL
    assert not state.stop_requested


def test_a_later_checkpoint_refunds_the_budget_and_an_equal_one_does_not() -> None:
    """Only progress beyond everything before it forgives the failures since."""
    assert run(RUNNING, verified(400)).failures == PAST
    assert run(RUNNING, verified(401)).failures == ()
    assert run(replace(BASE, phase=S.RUNNING, best_checkpoint=None), verified(0)).failures == ()


def test_nothing_arms_a_deadline_once_the_worker_has_exited() -> None:
    """Last words, a stop and a late deadline leave a job without a worker without deadlines."""
    late = [SignSeen(9), ProgressBegan(3), STOP, FORCED, SignSeen(9), passed(DeadlineName.STOP)]
    state = EXITED
    for event in late:
        state, effects = step(state, event, NOW)
        assert state.deadlines == Deadlines()
        assert effects == ()


def test_the_late_exit_of_an_earlier_attempt_says_nothing() -> None:
    """One that could not be killed ends at last, while the next attempt runs."""
    assert step(RUNNING, WorkerExited(2, 0, None), NOW) == (RUNNING, ())
