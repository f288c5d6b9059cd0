"""The behaviour of a job: one table of transitions, and the handlers that it names.

`step(state, event, now)` answers with the next state and the effects to carry out. It is the only
place where a job changes state. An event that the table does not know in a state raises
`IllegalEvent` and changes nothing. ARCHITECTURE.md's diagram is drawn from TRANSITIONS.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from supervisor.core import ceiling
from supervisor.core.causes import Action, Cause, State
from supervisor.core.deadlines import Deadlines
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
from supervisor.core.evidence import DeadlineName
from supervisor.core.state import JobState

Outcome = tuple[JobState, tuple[Effect, ...]]


class IllegalEvent(Exception):
    """An event that cannot happen in this state: a fault of the runner, never of a user."""


def _begin(state: JobState, _event: RunnerStarted, _now: float) -> Outcome:
    return replace(state, phase=State.QUEUED), (ChooseCheckpoint(state.ceiling),)


def _begin_anew(state: JobState, event: RunnerStarted, now: float) -> Outcome:
    """A person runs a job that failed or was held: the budget starts anew."""
    return _begin(replace(state, failures=(), why=""), event, now)


def _lost(state: JobState, event: RunnerStarted, _now: float) -> Outcome:
    """The runner before this one died while an attempt was running.

    An exit, a deadline or a stop that it had journaled still counts: the end is concluded from
    that. But whoever starts a runner wants the job to run, so it goes on after a stop.
    """
    state = replace(state, phase=State.RUNNING, exited=True, deadlines=Deadlines())
    return state, (ReclaimWorker(state.attempt, event.rebooted),)


def _unchanged(state: JobState, _event: Event, _now: float) -> Outcome:
    return state, ()


def _reopened(state: JobState, _event: SpecChanged, _now: float) -> Outcome:
    """A person continues a job that was done, under a job.yaml that asks for more."""
    return replace(state, phase=State.QUEUED, failures=()), ()


def _chosen(state: JobState, event: CheckpointChosen, _now: float) -> Outcome:
    why = ceiling.nothing_usable(state, event)
    if why is not None:
        # The ceiling goes: when a person runs the job again, the newest is tried once more.
        state = replace(state, phase=State.HOLDING, ceiling=None, why=why)
        return state, (EndRun(State.HOLDING),)
    state = replace(
        state,
        phase=State.RUNNING,
        attempt=state.attempt + 1,
        exited=False,
        exit_code=None,
        signal=None,
        stop_requested=False,
        fired=None,
        resumed_step=event.step,
        saved_step=None,
        step=None,
        progressed=False,
        why="",
    )
    return state, (SpawnAttempt(state.attempt, event.path, event.step),)


def _hold(state: JobState, event: HoldRequired, _now: float) -> Outcome:
    return replace(state, phase=State.HOLDING, why=event.reason), (EndRun(State.HOLDING),)


def _verified(state: JobState, event: CheckpointVerified, _now: float) -> Outcome:
    state = replace(state, ceiling=ceiling.raised(state, event.step))
    if state.best_checkpoint is not None and event.step <= state.best_checkpoint:
        return state, ()
    return replace(state, best_checkpoint=event.step, failures=()), ()


def _saved(state: JobState, event: CheckpointVerified, now: float) -> Outcome:
    """Verified while an attempt runs: its own work, if it is beyond where the attempt began."""
    if state.resumed_step is None or event.step > state.resumed_step:
        state = replace(state, saved_step=event.step)
    return _verified(state, event, now)


def _spawned(state: JobState, _event: AttemptSpawned, now: float) -> Outcome:
    armed = Deadlines.at_spawn(state.timeouts, now, state.spent_s)
    return replace(state, deadlines=armed), ()


def _spawned_to_stop(state: JobState, _event: AttemptSpawned, now: float) -> Outcome:
    """The stop came while the worker was being spawned."""
    return replace(state, deadlines=state.deadlines.on_stop(state.timeouts, now)), (StopWorker(),)


def _progress_began(state: JobState, _event: ProgressBegan, now: float) -> Outcome:
    return replace(state, progressed=True, deadlines=_after_sign(state, now)), ()


def _sign(state: JobState, event: SignSeen, now: float) -> Outcome:
    step = state.step if event.step is None else event.step
    return replace(state, step=step, deadlines=_after_sign(state, now)), ()


def _after_sign(state: JobState, now: float) -> Deadlines:
    """The last words of a worker that has ended, or is being killed, arm nothing."""
    over = state.exited or state.fired is not None
    return state.deadlines if over else state.deadlines.on_sign(state.timeouts, now)


def _deadline(state: JobState, event: DeadlinePassed, now: float) -> Outcome:
    if state.exited:
        return replace(state, deadlines=Deadlines()), ()
    state = replace(state, fired=state.fired or event.name)
    if event.name is DeadlineName.TOTAL:
        armed = state.deadlines.on_stop(state.timeouts, now)
        return replace(state, phase=State.STOPPING, deadlines=armed), (StopWorker(),)
    hung = event.name is not DeadlineName.STOP
    return replace(state, deadlines=Deadlines()), (KillWorker(capture_stacks=hung),)


def _stop(state: JobState, event: StopRequested, now: float) -> Outcome:
    state = replace(state, phase=State.STOPPING)
    if state.exited:
        return state, ()
    effect: Effect = KillWorker() if event.forced else StopWorker()
    armed = state.deadlines.on_stop(state.timeouts, now)
    return replace(state, stop_requested=_stopped_by_it(state), deadlines=armed), (effect,)


def _stop_again(state: JobState, event: StopRequested, _now: float) -> Outcome:
    kill = event.forced and not state.exited
    return replace(state, stop_requested=_stopped_by_it(state)), (KillWorker(),) if kill else ()


def _stopped_by_it(state: JobState) -> bool:
    """A stop explains the end of an attempt only if it came before the end, or what led to it."""
    return state.stop_requested or not (state.exited or state.fired)


def _stop_idle(state: JobState, _event: StopRequested, _now: float) -> Outcome:
    return replace(state, phase=State.STOPPED), (EndRun(State.STOPPED),)


def _exited(state: JobState, event: WorkerExited, _now: float) -> Outcome:
    state = replace(state, exited=True, exit_code=event.exit_code, signal=event.signal)
    return replace(state, deadlines=Deadlines()), (ConcludeAttempt(event.number),)


def _ended(state: JobState, event: AttemptEnded, _now: float) -> Outcome:
    state = replace(
        state,
        exited=True,
        deadlines=Deadlines(),
        spent_s=state.spent_s + event.ran_s,
        step=event.evidence.step,
        why=f"{event.cause}: {event.reason}",
    )
    if event.counted:
        failure = failure_of(event)
        state = replace(state, failures=(*state.failures, failure))
    if event.action is Action.RESUME_FROM_OLDER:
        state = replace(state, ceiling=ceiling.lowered(state, event.cause))
    phase = _phase_after(state, event)
    state = replace(state, phase=phase)
    if phase is State.BACKING_OFF:
        return state, (WaitBackoff(event.delay_s),)
    return state, (EndRun(phase),)


def failure_of(event: AttemptEnded) -> Failure:
    """The counted failure that an ended attempt leaves in the job's memory."""
    seen = event.evidence
    return Failure(event.cause, seen.step, seen.error_line, event.at_s, at_start=seen.at_start)


def _phase_after(state: JobState, event: AttemptEnded) -> State:
    fixed = {Action.HOLD: State.HOLDING, Action.GIVE_UP: State.FAILED}
    if event.action in fixed:
        return fixed[event.action]
    if event.action is Action.FINISH and event.cause is Cause.COMPLETED:
        return State.SUCCEEDED
    return State.STOPPED if state.phase is State.STOPPING else State.BACKING_OFF


def _elapsed(state: JobState, _event: BackoffElapsed, _now: float) -> Outcome:
    return replace(state, phase=State.QUEUED), (ChooseCheckpoint(state.ceiling),)


S = State
Step = Callable[[JobState, Any, float], Outcome]

# (state, event) -> (handler, states it may lead to). Read it as the table it is.
TRANSITIONS: dict[tuple[State, type[Event]], tuple[Step, tuple[State, ...]]] = {
    (S.QUEUED, RunnerStarted): (_begin, (S.QUEUED,)),
    (S.QUEUED, SpecChanged): (_unchanged, (S.QUEUED,)),
    (S.QUEUED, CheckpointVerified): (_verified, (S.QUEUED,)),
    (S.QUEUED, CheckpointChosen): (_chosen, (S.RUNNING, S.HOLDING)),
    (S.QUEUED, HoldRequired): (_hold, (S.HOLDING,)),
    (S.QUEUED, StopRequested): (_stop_idle, (S.STOPPED,)),
    (S.RUNNING, RunnerStarted): (_lost, (S.RUNNING,)),
    (S.RUNNING, SpecChanged): (_unchanged, (S.RUNNING,)),
    (S.RUNNING, AttemptSpawned): (_spawned, (S.RUNNING,)),
    (S.RUNNING, ProgressBegan): (_progress_began, (S.RUNNING,)),
    (S.RUNNING, SignSeen): (_sign, (S.RUNNING,)),
    (S.RUNNING, CheckpointVerified): (_saved, (S.RUNNING,)),
    (S.RUNNING, DeadlinePassed): (_deadline, (S.RUNNING, S.STOPPING)),
    (S.RUNNING, StopRequested): (_stop, (S.STOPPING,)),
    (S.RUNNING, WorkerExited): (_exited, (S.RUNNING,)),
    (S.RUNNING, AttemptEnded): (_ended, (S.SUCCEEDED, S.FAILED, S.BACKING_OFF, S.HOLDING)),
    (S.STOPPING, RunnerStarted): (_lost, (S.RUNNING,)),
    (S.STOPPING, SpecChanged): (_unchanged, (S.STOPPING,)),
    (S.STOPPING, AttemptSpawned): (_spawned_to_stop, (S.STOPPING,)),
    (S.STOPPING, ProgressBegan): (_progress_began, (S.STOPPING,)),
    (S.STOPPING, SignSeen): (_sign, (S.STOPPING,)),
    (S.STOPPING, CheckpointVerified): (_saved, (S.STOPPING,)),
    (S.STOPPING, DeadlinePassed): (_deadline, (S.STOPPING,)),
    (S.STOPPING, StopRequested): (_stop_again, (S.STOPPING,)),
    (S.STOPPING, WorkerExited): (_exited, (S.STOPPING,)),
    (S.STOPPING, AttemptEnded): (_ended, (S.STOPPED, S.SUCCEEDED, S.FAILED, S.HOLDING)),
    (S.BACKING_OFF, RunnerStarted): (_begin, (S.QUEUED,)),
    (S.BACKING_OFF, SpecChanged): (_unchanged, (S.BACKING_OFF,)),
    (S.BACKING_OFF, CheckpointVerified): (_verified, (S.BACKING_OFF,)),
    (S.BACKING_OFF, BackoffElapsed): (_elapsed, (S.QUEUED,)),
    (S.BACKING_OFF, StopRequested): (_stop_idle, (S.STOPPED,)),
    (S.SUCCEEDED, SpecChanged): (_reopened, (S.QUEUED,)),
    (S.STOPPED, RunnerStarted): (_begin, (S.QUEUED,)),
    (S.STOPPED, SpecChanged): (_unchanged, (S.STOPPED,)),
    (S.HOLDING, RunnerStarted): (_begin_anew, (S.QUEUED,)),
    (S.HOLDING, SpecChanged): (_unchanged, (S.HOLDING,)),
    (S.FAILED, RunnerStarted): (_begin_anew, (S.QUEUED,)),
    (S.FAILED, SpecChanged): (_unchanged, (S.FAILED,)),
}


def step(state: JobState, event: Event, now: float) -> Outcome:
    """The next state and the effects to carry out, in order.

    `now` is the runner's monotonic clock in seconds; replay may pass any constant.

    Raises:
        IllegalEvent: the table knows no such event in this state; nothing has changed.
    """
    row = TRANSITIONS.get((state.phase, type(event)))
    if row is None:
        raise IllegalEvent(f"{type(event).__name__} cannot happen to a job that is {state.phase}")
    handler, _ = row
    return handler(state, event, now)
