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
    PhaseBegan,
    PhaseEnded,
    ProgressBegan,
    SignSeen,
    StopRequested,
    WorkerExited,
    WorkerRevived,
)
from supervisor.core.evidence import DeadlineName
from supervisor.core.gpu import GpuTrouble
from supervisor.core.state import JobState

MOST_TROUBLES = 16  # a GPU that falls apart reports the same again and again


def saved(state: JobState, event: CheckpointVerified, now: float) -> Outcome:
    """Verified while an attempt runs: its own work, if it is beyond where the attempt began."""
    if state.resumed_step is None or event.step > state.resumed_step:
        state = replace(state, saved_step=event.step)
    return beginning.verified(state, event, now)


def spawned(state: JobState, _event: AttemptSpawned, now: float) -> Outcome:
    """The worker exists: its deadlines begin."""
    state = replace(state, cadence=state.cadence.interrupted(), phase_until=None)
    armed = Deadlines.at_spawn(state.timeouts, now, state.spent_s)
    return replace(state, deadlines=armed), ()


def spawned_to_stop(state: JobState, _event: AttemptSpawned, now: float) -> Outcome:
    """The stop came while the worker was being spawned."""
    return replace(state, deadlines=state.deadlines.on_stop(state.timeouts, now)), (StopWorker(),)


def _leaves(state: JobState) -> bool:
    """Whether the worker has ended, is being killed, or was asked to leave."""
    known = state.fired is not None or state.breach is not None
    return state.exited or known or state.deadlines.stop is not None


def progress_began(state: JobState, _event: ProgressBegan, now: float) -> Outcome:
    """The first sign of progress."""
    return _after_sign(replace(state, progressed=True), now), ()


def sign(state: JobState, event: SignSeen, now: float) -> Outcome:
    """One more sign of progress."""
    step = state.step if event.step is None else event.step
    return _after_sign(replace(state, step=step), now), ()


def _after_sign(state: JobState, now: float) -> JobState:
    """The last words of a worker that has ended, or is to leave, arm nothing."""
    if _leaves(state):
        return state
    if state.timeouts.heartbeat_auto:
        cadence = state.cadence.sign(now)
        timeouts = replace(state.timeouts, heartbeat_s=cadence.timeout_s)
        state = replace(state, cadence=cadence, timeouts=timeouts)
    armed = state.deadlines.on_sign(state.timeouts, now).not_before(state.phase_until)
    return replace(state, deadlines=armed)


def phase_began(state: JobState, event: PhaseBegan, now: float) -> Outcome:
    """It compiles, saves or evaluates: silence is no hang, until the phase has lasted too long."""
    if _leaves(state) or event.number != state.attempt:
        return state, ()
    until = max(now + event.limit_s, state.phase_until or now)
    return replace(state, phase_until=until, deadlines=state.deadlines.not_before(until)), ()


def phase_ended(state: JobState, event: PhaseEnded, now: float) -> Outcome:
    """What it waited for is there: whichever deadline is armed begins anew."""
    if event.number != state.attempt:
        return state, ()
    state = replace(state, phase_until=None, cadence=state.cadence.paused(now))
    if _leaves(state):
        return state, ()
    if state.deadlines.heartbeat is not None:
        return replace(state, deadlines=state.deadlines.on_sign(state.timeouts, now)), ()
    return replace(state, deadlines=state.deadlines.restarted(state.timeouts, now)), ()


def deadline(state: JobState, event: DeadlinePassed, now: float) -> Outcome:
    """One fired: a hung worker is killed, one whose whole time is over is asked to stop."""
    if state.exited:
        return replace(state, deadlines=Deadlines()), ()
    first = event.name if event.name is DeadlineName.TOTAL else state.fired or event.name
    state = replace(state, fired=first, seen=state.seen or event.seen)
    if event.name is DeadlineName.TOTAL:
        armed = state.deadlines.on_stop(state.timeouts, now)
        return replace(state, phase=State.STOPPING, deadlines=armed), (StopWorker(),)
    hung = event.name is not DeadlineName.STOP
    # The total goes on: it may be revived.
    kept = Deadlines(total=state.deadlines.total)
    return replace(state, deadlines=kept), (KillWorker(capture_stacks=hung),)


def deferred(state: JobState, event: DeadlineDeferred, now: float) -> Outcome:
    """Silent, but not hung: it gets more time."""
    until = now + event.extra_s
    return replace(state, deadlines=state.deadlines.deferred(event.name, until)), ()


def revived(state: JobState, event: WorkerRevived, now: float) -> Outcome:
    """It was slow, not hung: its deadlines begin anew, and nothing has happened."""
    if state.exited or event.number != state.attempt:
        return state, ()
    return _after_sign(replace(state, fired=None, seen=""), now), ()


def revived_to_stop(state: JobState, event: WorkerRevived, _now: float) -> Outcome:
    """Somebody asked it to stop meanwhile: that is why it ends now, unless its time is over."""
    over = state.fired is DeadlineName.TOTAL
    if state.exited or over or event.number != state.attempt:
        return state, ()
    return replace(state, fired=None, seen="", stop_requested=True), ()


def exceeded(state: JobState, event: LimitExceeded, now: float) -> Outcome:
    """It uses more than it may: it is asked to save and leave, or killed."""
    if state.exited or event.number != state.attempt:
        return state, ()
    limit = event.breach.limit
    if limit.asks:
        if _leaves(state):
            return state, ()
        armed = state.deadlines.on_stop(state.timeouts, now)
        return replace(state, breach=event.breach, deadlines=armed), (StopWorker(),)
    if state.breach is not None and not state.breach.limit.asks:
        return state, ()
    return replace(state, breach=event.breach, deadlines=Deadlines()), (KillWorker(),)


def troubled(state: JobState, event: GpuTroubleSeen, now: float) -> Outcome:
    """A GPU of the attempt is in trouble: a worker that cannot go on is asked to leave."""
    if event.number != state.attempt:
        return state, ()
    state = replace(state, troubles=_most_telling(state.troubles, event.trouble))
    if _leaves(state) or not event.trouble.ends_attempt:
        return state, ()
    return replace(state, deadlines=state.deadlines.on_stop(state.timeouts, now)), (StopWorker(),)


def _most_telling(before: tuple[GpuTrouble, ...], new: GpuTrouble) -> tuple[GpuTrouble, ...]:
    """As many as are kept; notes make room for what ends an attempt."""
    if len(before) < MOST_TROUBLES:
        return (*before, new)
    at = next((n for n, one in enumerate(before) if not one.ends_attempt), None)
    if at is None or not new.ends_attempt:
        return before
    return (*before[:at], *before[at + 1 :], new)


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
    led_to_it = state.fired or state.breach or any(one.ends_attempt for one in state.troubles)
    return state.stop_requested or not (state.exited or led_to_it)


def exited(state: JobState, event: WorkerExited, _now: float) -> Outcome:
    """The main process is gone. The late exit of an earlier, unkillable one says nothing."""
    if event.number != state.attempt:
        return state, ()
    state = replace(state, exited=True, exit_code=event.exit_code, signal=event.signal)
    return replace(state, deadlines=Deadlines()), (ConcludeAttempt(event.number),)
