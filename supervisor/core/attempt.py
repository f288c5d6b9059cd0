"""What happens to a job while an attempt runs: signs, deadlines, limits, stops, and its exit.

Owns these handlers of `machine.TRANSITIONS`; each is (state, event, now) -> (state, effects).
"""

from dataclasses import replace

from supervisor.core import beginning
from supervisor.core.beginning import Outcome
from supervisor.core.causes import State
from supervisor.core.deadlines import Deadlines
from supervisor.core.effects import ConcludeAttempt, Effect, KillWorker, StopWorker
from supervisor.core.events import (
    AttemptSpawned,
    CheckpointVerified,
    DeadlineDeferred,
    DeadlinePassed,
    GpuTroubleSeen,
    LimitExceeded,
    ProgressBegan,
    SignSeen,
    StopRequested,
    WorkerExited,
)
from supervisor.core.evidence import DeadlineName
from supervisor.core.state import JobState

MOST_TROUBLES = 16  # a GPU that falls apart reports the same again and again


def saved(state: JobState, event: CheckpointVerified, now: float) -> Outcome:
    """Verified while an attempt runs: its own work, if it is beyond where the attempt began."""
    if state.resumed_step is None or event.step > state.resumed_step:
        state = replace(state, saved_step=event.step)
    return beginning.verified(state, event, now)


def spawned(state: JobState, _event: AttemptSpawned, now: float) -> Outcome:
    """The worker exists: its deadlines begin."""
    state = replace(state, cadence=state.cadence.interrupted())
    armed = Deadlines.at_spawn(state.timeouts, now, state.spent_s)
    return replace(state, deadlines=armed), ()


def spawned_to_stop(state: JobState, _event: AttemptSpawned, now: float) -> Outcome:
    """The stop came while the worker was being spawned."""
    return replace(state, deadlines=state.deadlines.on_stop(state.timeouts, now)), (StopWorker(),)


def progress_began(state: JobState, _event: ProgressBegan, now: float) -> Outcome:
    """The first sign of progress."""
    return _after_sign(replace(state, progressed=True), now), ()


def sign(state: JobState, event: SignSeen, now: float) -> Outcome:
    """One more sign of progress."""
    step = state.step if event.step is None else event.step
    return _after_sign(replace(state, step=step), now), ()


def _after_sign(state: JobState, now: float) -> JobState:
    """The last words of a worker that has ended, or is being killed, arm nothing."""
    if state.exited or state.fired is not None:
        return state
    if state.timeouts.heartbeat_auto:
        cadence = state.cadence.sign(now)
        timeouts = replace(state.timeouts, heartbeat_s=cadence.timeout_s)
        state = replace(state, cadence=cadence, timeouts=timeouts)
    return replace(state, deadlines=state.deadlines.on_sign(state.timeouts, now))


def deadline(state: JobState, event: DeadlinePassed, now: float) -> Outcome:
    """One fired: a hung worker is killed, one whose whole time is over is asked to stop."""
    if state.exited:
        return replace(state, deadlines=Deadlines()), ()
    state = replace(state, fired=state.fired or event.name, seen=state.seen or event.seen)
    if event.name is DeadlineName.TOTAL:
        armed = state.deadlines.on_stop(state.timeouts, now)
        return replace(state, phase=State.STOPPING, deadlines=armed), (StopWorker(),)
    hung = event.name is not DeadlineName.STOP
    return replace(state, deadlines=Deadlines()), (KillWorker(capture_stacks=hung),)


def deferred(state: JobState, event: DeadlineDeferred, now: float) -> Outcome:
    """Silent, but not hung: it gets more time."""
    until = now + event.extra_s
    return replace(state, deadlines=state.deadlines.deferred(event.name, until)), ()


def exceeded(state: JobState, event: LimitExceeded, now: float) -> Outcome:
    """It uses more than it may: it is asked to save and leave, or killed."""
    if state.exited:
        return state, ()
    limit = event.breach.limit
    if limit.asks:
        if state.breach is not None or state.deadlines.stop is not None:
            return state, ()  # it is leaving already
        armed = state.deadlines.on_stop(state.timeouts, now)
        return replace(state, breach=event.breach, deadlines=armed), (StopWorker(),)
    if state.breach is not None and not state.breach.limit.asks:
        return state, ()
    return replace(state, breach=event.breach, deadlines=Deadlines()), (KillWorker(),)


def troubled(state: JobState, event: GpuTroubleSeen, now: float) -> Outcome:
    """A GPU of the attempt is in trouble: a worker that cannot go on is asked to leave."""
    troubles = (*state.troubles, event.trouble)[:MOST_TROUBLES]
    state = replace(state, troubles=troubles)
    leaving = state.exited or state.deadlines.stop is not None or state.fired is not None
    if leaving or not event.trouble.ends_attempt:
        return state, ()
    return replace(state, deadlines=state.deadlines.on_stop(state.timeouts, now)), (StopWorker(),)


def stop(state: JobState, event: StopRequested, now: float) -> Outcome:
    """Somebody asks the job to stop."""
    state = replace(state, phase=State.STOPPING)
    if state.exited:
        return state, ()
    effect: Effect = KillWorker() if event.forced else StopWorker()
    armed = state.deadlines.on_stop(state.timeouts, now)
    return replace(state, stop_requested=_stopped_by_it(state), deadlines=armed), (effect,)


def stop_again(state: JobState, event: StopRequested, _now: float) -> Outcome:
    """Asked twice, or asked while the job is being stopped for another reason."""
    kill = event.forced and not state.exited
    return replace(state, stop_requested=_stopped_by_it(state)), (KillWorker(),) if kill else ()


def _stopped_by_it(state: JobState) -> bool:
    """A stop explains the end of an attempt only if it came before the end, or what led to it."""
    return state.stop_requested or not (state.exited or state.fired or state.breach)


def exited(state: JobState, event: WorkerExited, _now: float) -> Outcome:
    """The main process is gone."""
    state = replace(state, exited=True, exit_code=event.exit_code, signal=event.signal)
    return replace(state, deadlines=Deadlines()), (ConcludeAttempt(event.number),)
