"""What happens to a job between two attempts: GPUs, checkpoint, and the next one begins.

Owns these handlers of `machine.TRANSITIONS`; each is (state, event, now) -> (state, effects).
"""

from dataclasses import replace

from supervisor.core import ceiling
from supervisor.core.causes import Cause, State
from supervisor.core.deadlines import Deadlines
from supervisor.core.effects import (
    ChooseCheckpoint,
    Effect,
    EndRun,
    LeaseGpus,
    ReclaimWorker,
    SetGpusAside,
    SpawnAttempt,
    WaitForSpace,
)
from supervisor.core.events import (
    BackoffElapsed,
    CheckpointChosen,
    CheckpointVerified,
    Event,
    GpusAwaited,
    GpusLeased,
    GpusSetAside,
    HoldRequired,
    JobCancelled,
    RunnerStarted,
    SpaceReturned,
    SpecChanged,
    StopRequested,
)
from supervisor.core.item_events import ItemsPlanned
from supervisor.core.state import JobState

Outcome = tuple[JobState, tuple[Effect, ...]]


def first_effect(state: JobState) -> Effect:
    """Where the way to the next attempt begins."""
    if not state.gpus_wanted:
        return ChooseCheckpoint(state.ceiling)
    return LeaseGpus((*state.avoid, *(uuid for uuid, _ in state.spoilt)))


def begin(state: JobState, _event: BackoffElapsed | SpaceReturned, _now: float) -> Outcome:
    """The next attempt is due."""
    state = replace(state, phase=State.QUEUED, gpus=())
    return state, (first_effect(state),)


def taken_over(state: JobState, event: RunnerStarted, now: float) -> Outcome:
    """A runner takes over a job without a worker: the next attempt is due."""
    if state.phase is State.STOPPED:
        state = replace(state, avoid=())  # a person decides anew
    state, asides = _set_aside_again(state, event)
    state, effects = begin(state, BackoffElapsed(), now)
    return state, (*asides, *effects)


def begin_anew(state: JobState, event: RunnerStarted, now: float) -> Outcome:
    """A person runs a job that failed or was held: the budget starts anew."""
    return taken_over(replace(state, failures=(), avoid=(), why=""), event, now)


def _set_aside_again(state: JobState, event: RunnerStarted) -> Outcome:
    """The runner before this one may have died before it kept others from a spoilt GPU.

    Once that has been confirmed it is not repeated: a person may have released the GPU since. A
    restart of the host resets it.
    """
    if event.rebooted:
        return replace(state, spoilt=()), ()
    return state, tuple(SetGpusAside((uuid,), reason) for uuid, reason in state.spoilt)


def set_aside(state: JobState, event: GpusSetAside, _now: float) -> Outcome:
    """It is done: nobody gets these GPUs."""
    left = tuple((uuid, reason) for uuid, reason in state.spoilt if uuid not in event.gpus)
    return replace(state, spoilt=left), ()


def lost(state: JobState, event: RunnerStarted, _now: float) -> Outcome:
    """The runner before this one died while an attempt was running.

    An exit, a deadline or a stop that it had journaled still counts: the end is concluded from
    that. But whoever starts a runner wants the job to run, so it goes on after a stop.
    """
    state, asides = _set_aside_again(state, event)
    state = replace(state, phase=State.RUNNING, exited=True, deadlines=Deadlines())
    return state, (*asides, ReclaimWorker(state.attempt, event.rebooted))


def unchanged(state: JobState, _event: Event, _now: float) -> Outcome:
    """A fact that changes nothing here."""
    return state, ()


def reopened(state: JobState, _event: SpecChanged, _now: float) -> Outcome:
    """A person continues a job that was done, under a job.yaml that asks for more."""
    return replace(state, phase=State.QUEUED, failures=(), avoid=()), ()


def planned(state: JobState, event: ItemsPlanned, _now: float) -> Outcome:
    """The items of a batch job are known. One that was run before may have nothing left to do."""
    if event.left or not state.attempt:
        return state, ()
    phase = State.HOLDING if event.quarantined else State.SUCCEEDED
    why = f"{event.quarantined} of {event.total} items are quarantined" if event.quarantined else ""
    return replace(state, phase=phase, why=why), (EndRun(phase),)


def leased(state: JobState, event: GpusLeased, _now: float) -> Outcome:
    """The GPUs are there; now the checkpoint."""
    return replace(state, gpus=event.gpus, why=""), (ChooseCheckpoint(state.ceiling),)


def awaited(state: JobState, event: GpusAwaited, _now: float) -> Outcome:
    """No GPU is free; the effect that asked goes on waiting."""
    return replace(state, gpus=(), why=event.reason), ()


def chosen(state: JobState, event: CheckpointChosen, _now: float) -> Outcome:
    """It is known what to start from: the next attempt begins, unless there is nothing usable."""
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
        seen="",
        breach=None,
        troubles=(),
        resumed_step=event.step,
        saved_step=None,
        step=None,
        progressed=False,
        why="",
    )
    return state, (SpawnAttempt(state.attempt, event.path, event.step, state.gpus),)


def hold(state: JobState, event: HoldRequired, _now: float) -> Outcome:
    """The next attempt must not start."""
    state = replace(state, phase=State.HOLDING, why=event.reason)
    return state, (leave_holding(event.cause),)


def leave_holding(cause: Cause) -> Effect:
    """A full disk may empty itself of what another program left there; all else needs a person."""
    return WaitForSpace() if cause is Cause.DISK_FULL else EndRun(State.HOLDING)


def verified(state: JobState, event: CheckpointVerified, _now: float) -> Outcome:
    """A checkpoint is safe; one beyond all before it refunds the budget."""
    state = replace(state, ceiling=ceiling.raised(state, event.step))
    if event.tier == "disk" and (
        state.disk_checkpoint is None or event.step > state.disk_checkpoint
    ):
        state = replace(state, disk_checkpoint=event.step)
    if state.best_checkpoint is not None and event.step <= state.best_checkpoint:
        return state, ()
    return replace(state, best_checkpoint=event.step, failures=(), avoid=()), ()


def cancelled(state: JobState, event: JobCancelled, _now: float) -> Outcome:
    """It never runs again. Whoever has the job leaves, and no runner comes after it.

    So what the last one may not have done for others is done now: spoilt GPUs are set aside.
    """
    asides = tuple(SetGpusAside((uuid,), reason) for uuid, reason in state.spoilt)
    why = f"cancelled by {event.source}"
    return replace(state, phase=State.CANCELLED, why=why), (*asides, EndRun(State.CANCELLED))


def stop_idle(state: JobState, _event: StopRequested, _now: float) -> Outcome:
    """There is no worker to ask."""
    return replace(state, phase=State.STOPPED), (EndRun(State.STOPPED),)
