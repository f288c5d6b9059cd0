"""The behaviour of a job, row by row of the table of transitions."""

from dataclasses import replace
from typing import Any

import pytest

from supervisor.core.causes import Action, Cause, State
from supervisor.core.deadlines import Deadlines, Timeouts
from supervisor.core.decide import Failure
from supervisor.core.effects import (
    ChooseCheckpoint,
    ConcludeAttempt,
    Effect,
    EndRun,
    KillWorker,
    ReclaimWorker,
    SpawnAttempt,
    StopWorker,
    WaitBackoff,
)
from supervisor.core.events import (
    EVENTS,
    AttemptEnded,
    AttemptSpawned,
    BackoffElapsed,
    CheckpointChosen,
    CheckpointVerified,
    DeadlinePassed,
    Event,
    HoldRequired,
    ProgressBegan,
    RunnerStarted,
    SignSeen,
    SpecChanged,
    StopRequested,
    WorkerExited,
)
from supervisor.core.evidence import DeadlineName, Evidence
from supervisor.core.machine import TRANSITIONS, IllegalEvent, step
from supervisor.core.state import JobState

S = State
NOW = 1000.0
TIMES = Timeouts(startup_s=10.0, heartbeat_s=20.0, stop_s=5.0, total_s=100.0)
PAST = (Failure(Cause.SIGNAL, 90, "boom", 1.0),)

STARTED = RunnerStarted(4, 5, "boot")
REBOOTED = RunnerStarted(4, 5, "boot", rebooted=True)
CHANGED = SpecChanged(("lr: 1 -> 2",))
FROM_ZERO = CheckpointChosen(None, None)
FROM_300 = CheckpointChosen("c300", 300, candidates=2)
STOP, FORCED = StopRequested("Ctrl-C"), StopRequested("Ctrl-C", forced=True)


def verified(at: int) -> CheckpointVerified:
    """A checkpoint of this step that verified."""
    return CheckpointVerified(at, f"c{at}", "torch_zip", "crc", 9, 1.0, pinned=True)


def passed(name: DeadlineName) -> DeadlinePassed:
    """A deadline that fired."""
    return DeadlinePassed(name, 1.0)


def ended(action: Action, cause: Cause = Cause.EXIT_CODE, **more: Any) -> AttemptEnded:
    """The end of attempt 3 after 7 s at step 410, with this decision."""
    facts = {"counted": False, "delay_s": 0.0} | more
    seen = Evidence(step=410, error_line="KeyError")
    return AttemptEnded(
        3, cause, "why", action, "because", ran_s=7.0, at_s=50.0, evidence=seen, **facts
    )


BASE = JobState(TIMES, attempt=3, resumed_step=300, best_checkpoint=400, failures=PAST)
QUEUED = replace(  # with all that an attempt before may have left behind
    BASE,
    phase=S.QUEUED,
    ceiling=400,
    exited=True,
    exit_code=1,
    signal=9,
    stop_requested=True,
    fired=DeadlineName.HEARTBEAT,
    saved_step=390,
    step=395,
    progressed=True,
    why="hang: silent",
)
RUNNING = replace(
    BASE,
    phase=S.RUNNING,
    step=350,
    progressed=True,
    spent_s=3.0,
    deadlines=Deadlines(heartbeat=1007.0),
)
UNSPAWNED = replace(BASE, phase=S.RUNNING)
EXITED = replace(RUNNING, exited=True, exit_code=1, deadlines=Deadlines())
HUNG = replace(RUNNING, fired=DeadlineName.HEARTBEAT, deadlines=Deadlines())
STOPPING = replace(RUNNING, phase=S.STOPPING, stop_requested=True, deadlines=Deadlines(stop=1004.0))
TIMED_OUT = replace(STOPPING, stop_requested=False, fired=DeadlineName.TOTAL)
OVER = replace(BASE, exited=True, why="exit_code: boom", spent_s=5.0)
BACKING_OFF = replace(OVER, phase=S.BACKING_OFF, ceiling=200)
STOPPED = replace(OVER, phase=S.STOPPED, ceiling=200)
HOLDING, FAILED = replace(OVER, phase=S.HOLDING), replace(OVER, phase=S.FAILED)
SUCCEEDED = replace(OVER, phase=S.SUCCEEDED)

NEW_ATTEMPT = {
    "attempt": 4,
    "exited": False,
    "exit_code": None,
    "signal": None,
    "fired": None,
    "stop_requested": False,
    "step": None,
    "saved_step": None,
    "progressed": False,
    "why": "",
}  # fmt: skip -- one record
NO_DEADLINES = {"deadlines": Deadlines()}
ALIVE = {"deadlines": Deadlines(heartbeat=NOW + 20)}
AFTER = {"exited": True, "spent_s": 10.0, "step": 410, "why": "exit_code: why"} | NO_DEADLINES
COUNTED = (*PAST, Failure(Cause.EXIT_CODE, 410, "KeyError", 50.0))
KILL, KILL_HUNG = KillWorker(), KillWorker(capture_stacks=True)
RECLAIM = ReclaimWorker(3, rebooted=False)

Row = tuple[JobState, Event, dict[str, Any], tuple[Effect, ...]]

# (state, event, what changes, effects). What is not named stays as it was.
ROWS: list[Row] = [
    (QUEUED, STARTED, {}, (ChooseCheckpoint(400),)),
    (QUEUED, CHANGED, {}, ()),
    (QUEUED, verified(300), {}, ()),
    (QUEUED, verified(500), {"best_checkpoint": 500, "failures": (), "ceiling": None}, ()),
    (
        QUEUED,
        FROM_300,
        NEW_ATTEMPT | {"phase": S.RUNNING, "resumed_step": 300},
        (SpawnAttempt(4, "c300", 300),),
    ),
    (
        replace(QUEUED, best_checkpoint=None, ceiling=None),
        FROM_ZERO,
        NEW_ATTEMPT | {"phase": S.RUNNING, "resumed_step": None},
        (SpawnAttempt(4, None, None),),
    ),
    (
        QUEUED,
        HoldRequired(Cause.DISK_FULL, "full"),
        {"phase": S.HOLDING, "why": "full"},
        (EndRun(S.HOLDING),),
    ),
    (QUEUED, STOP, {"phase": S.STOPPED}, (EndRun(S.STOPPED),)),
    (RUNNING, STARTED, {"exited": True} | NO_DEADLINES, (RECLAIM,)),
    (RUNNING, REBOOTED, {"exited": True} | NO_DEADLINES, (ReclaimWorker(3, rebooted=True),)),
    (EXITED, STARTED, {}, (RECLAIM,)),
    (HUNG, STARTED, {"exited": True}, (RECLAIM,)),
    (RUNNING, CHANGED, {}, ()),
    (
        UNSPAWNED,
        AttemptSpawned(3, 8, 9),
        {"deadlines": Deadlines(startup=NOW + 10, total=NOW + 100)},
        (),
    ),
    (
        replace(UNSPAWNED, spent_s=30.0),
        AttemptSpawned(3, 8, 9),
        {"deadlines": Deadlines(startup=NOW + 10, total=NOW + 70)},
        (),
    ),
    (replace(RUNNING, progressed=False), ProgressBegan(3), {"progressed": True} | ALIVE, ()),
    (RUNNING, SignSeen(360), {"step": 360} | ALIVE, ()),
    (RUNNING, SignSeen(), ALIVE, ()),
    (EXITED, SignSeen(360), {"step": 360}, ()),
    (HUNG, SignSeen(), {}, ()),
    (replace(EXITED, progressed=False), ProgressBegan(3), {"progressed": True}, ()),
    (RUNNING, verified(500), {"best_checkpoint": 500, "saved_step": 500, "failures": ()}, ()),
    (RUNNING, verified(400), {"saved_step": 400}, ()),
    (RUNNING, verified(300), {}, ()),
    (
        RUNNING,
        passed(DeadlineName.HEARTBEAT),
        {"fired": DeadlineName.HEARTBEAT} | NO_DEADLINES,
        (KILL_HUNG,),
    ),
    (
        RUNNING,
        passed(DeadlineName.STARTUP),
        {"fired": DeadlineName.STARTUP} | NO_DEADLINES,
        (KILL_HUNG,),
    ),
    (
        RUNNING,
        passed(DeadlineName.TOTAL),
        {"fired": DeadlineName.TOTAL, "phase": S.STOPPING, "deadlines": Deadlines(stop=NOW + 5)},
        (StopWorker(),),
    ),
    (EXITED, passed(DeadlineName.HEARTBEAT), {}, ()),
    (
        RUNNING,
        STOP,
        {"phase": S.STOPPING, "stop_requested": True, "deadlines": Deadlines(stop=NOW + 5)},
        (StopWorker(),),
    ),
    (
        RUNNING,
        FORCED,
        {"phase": S.STOPPING, "stop_requested": True, "deadlines": Deadlines(stop=NOW + 5)},
        (KILL,),
    ),
    (EXITED, STOP, {"phase": S.STOPPING}, ()),
    (HUNG, STOP, {"phase": S.STOPPING, "deadlines": Deadlines(stop=NOW + 5)}, (StopWorker(),)),
    (
        RUNNING,
        WorkerExited(3, 1, None),
        {"exited": True, "exit_code": 1} | NO_DEADLINES,
        (ConcludeAttempt(3),),
    ),
    (
        RUNNING,
        WorkerExited(3, None, 9),
        {"exited": True, "signal": 9} | NO_DEADLINES,
        (ConcludeAttempt(3),),
    ),
    (
        EXITED,
        ended(Action.FINISH, Cause.COMPLETED),
        AFTER | {"phase": S.SUCCEEDED, "why": "completed: why"},
        (EndRun(S.SUCCEEDED),),
    ),
    (EXITED, ended(Action.GIVE_UP), AFTER | {"phase": S.FAILED}, (EndRun(S.FAILED),)),
    (EXITED, ended(Action.HOLD), AFTER | {"phase": S.HOLDING}, (EndRun(S.HOLDING),)),
    (
        EXITED,
        ended(Action.RESUME, counted=True, delay_s=2.0),
        AFTER | {"phase": S.BACKING_OFF, "failures": COUNTED},
        (WaitBackoff(2.0),),
    ),
    (
        EXITED,
        ended(Action.RESUME_FROM_OLDER),
        AFTER | {"phase": S.BACKING_OFF, "ceiling": 300},
        (WaitBackoff(0.0),),
    ),
    (
        replace(EXITED, stop_requested=True),
        ended(Action.FINISH, Cause.STOPPED),
        AFTER | {"phase": S.BACKING_OFF, "why": "stopped: why"},
        (WaitBackoff(0.0),),
    ),
    (STOPPING, STARTED, {"phase": S.RUNNING, "exited": True} | NO_DEADLINES, (RECLAIM,)),
    (STOPPING, CHANGED, {}, ()),
    (STOPPING, AttemptSpawned(3, 8, 9), {"deadlines": Deadlines(stop=NOW + 5)}, (StopWorker(),)),
    (replace(STOPPING, progressed=False), ProgressBegan(3), {"progressed": True}, ()),
    (STOPPING, SignSeen(360), {"step": 360}, ()),
    (STOPPING, verified(500), {"best_checkpoint": 500, "saved_step": 500, "failures": ()}, ()),
    (STOPPING, passed(DeadlineName.STOP), {"fired": DeadlineName.STOP} | NO_DEADLINES, (KILL,)),
    (TIMED_OUT, passed(DeadlineName.STOP), NO_DEADLINES, (KILL,)),
    (STOPPING, STOP, {}, ()),
    (STOPPING, FORCED, {}, (KILL,)),
    (TIMED_OUT, STOP, {}, ()),
    (replace(STOPPING, exited=True), FORCED, {}, ()),
    (
        STOPPING,
        WorkerExited(3, 0, None),
        {"exited": True, "exit_code": 0} | NO_DEADLINES,
        (ConcludeAttempt(3),),
    ),
    (
        STOPPING,
        ended(Action.FINISH, Cause.STOPPED),
        AFTER | {"phase": S.STOPPED, "why": "stopped: why"},
        (EndRun(S.STOPPED),),
    ),
    (
        STOPPING,
        ended(Action.FINISH, Cause.COMPLETED),
        AFTER | {"phase": S.SUCCEEDED, "why": "completed: why"},
        (EndRun(S.SUCCEEDED),),
    ),
    (
        STOPPING,
        ended(Action.RESUME, counted=True, delay_s=9.0),
        AFTER | {"phase": S.STOPPED, "failures": COUNTED},
        (EndRun(S.STOPPED),),
    ),
    (
        STOPPING,
        ended(Action.RESUME_FROM_OLDER),
        AFTER | {"phase": S.STOPPED, "ceiling": 300},
        (EndRun(S.STOPPED),),
    ),
    (TIMED_OUT, ended(Action.GIVE_UP), AFTER | {"phase": S.FAILED}, (EndRun(S.FAILED),)),
    (STOPPING, ended(Action.HOLD), AFTER | {"phase": S.HOLDING}, (EndRun(S.HOLDING),)),
    (BACKING_OFF, STARTED, {"phase": S.QUEUED}, (ChooseCheckpoint(200),)),
    (BACKING_OFF, CHANGED, {}, ()),
    (BACKING_OFF, verified(150), {}, ()),
    (BACKING_OFF, BackoffElapsed(), {"phase": S.QUEUED}, (ChooseCheckpoint(200),)),
    (BACKING_OFF, STOP, {"phase": S.STOPPED}, (EndRun(S.STOPPED),)),
    (STOPPED, STARTED, {"phase": S.QUEUED}, (ChooseCheckpoint(200),)),
    (STOPPED, CHANGED, {}, ()),
    (HOLDING, STARTED, {"phase": S.QUEUED, "failures": (), "why": ""}, (ChooseCheckpoint(None),)),
    (HOLDING, CHANGED, {}, ()),
    (FAILED, STARTED, {"phase": S.QUEUED, "failures": (), "why": ""}, (ChooseCheckpoint(None),)),
    (FAILED, CHANGED, {}, ()),
    (SUCCEEDED, CHANGED, {"phase": S.QUEUED, "failures": ()}, ()),
]  # fmt: skip -- one row of the table a case


def named(row: Row) -> str:
    """State and event of a row, for the test's name."""
    return f"{row[0].phase}-{type(row[1]).__name__}"


@pytest.mark.parametrize("row", ROWS, ids=named)
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
        for state, event, changes, _ in [*ROWS, *HELD]
    }
    declared = {(*key, target) for key, (_, targets) in TRANSITIONS.items() for target in targets}
    assert tried == declared


# Nothing verifies although there was something: (state, event, words of the reason)
HELD_WHY: list[tuple[JobState, CheckpointChosen, str]] = [
    (replace(QUEUED, ceiling=None), CheckpointChosen(None, None, 3), "none of 3 checkpoints"),
    (replace(QUEUED, ceiling=None), FROM_ZERO, "(the last at step 400) are gone"),
    (QUEUED, FROM_ZERO, "no checkpoint before step 400"),
    (
        replace(QUEUED, best_checkpoint=None, ceiling=None),
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
ANY_EVENT: list[Event] = [
    STARTED,
    CHANGED,
    verified(1),
    FROM_ZERO,
    HoldRequired(Cause.DISK_FULL, "full"),
    AttemptSpawned(3, 8, 9),
    ProgressBegan(3),
    SignSeen(),
    passed(DeadlineName.STOP),
    STOP,
    WorkerExited(3, 0, None),
    ended(Action.RESUME),
    BackoffElapsed(),
]  # fmt: skip -- one list


def test_what_the_table_does_not_know_is_illegal() -> None:
    """Such an event raises, naming itself and the state; the state is a value, so it stays."""
    assert {type(event) for event in ANY_EVENT} == set(EVENTS.values())
    cancelled = replace(OVER, phase=S.CANCELLED)
    for state in [*STATES, cancelled]:
        for event in ANY_EVENT:
            if (state.phase, type(event)) in TRANSITIONS:
                continue
            with pytest.raises(IllegalEvent) as raised:
                step(state, event, NOW)
            assert type(event).__name__ in str(raised.value)
            assert state.phase in str(raised.value)


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
