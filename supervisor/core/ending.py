"""What the end of an attempt does to its job.

Owns the handler of `AttemptEnded`. What the cause and the decision are was found before and is part
of the event; here they only take effect.
"""

from dataclasses import replace

from supervisor.core import ceiling
from supervisor.core.beginning import Outcome, leave_holding
from supervisor.core.causes import Action, Cause, State
from supervisor.core.deadlines import Deadlines
from supervisor.core.decide import Failure
from supervisor.core.effects import Effect, EndRun, SetGpusAside, WaitBackoff
from supervisor.core.events import AttemptEnded
from supervisor.core.evidence import Evidence
from supervisor.core.state import JobState


def ended(state: JobState, event: AttemptEnded, _now: float) -> Outcome:
    """The attempt is over, its cause and the decision are known."""
    state = replace(
        state,
        exited=True,
        deadlines=Deadlines(),
        spent_s=state.spent_s + event.ran_s,
        step=event.evidence.step,
        why=f"{event.cause}: {event.reason}",
        failures=state.failures_before(event.evidence),
    )
    if event.counted:
        failure = failure_of(event)
        state = replace(state, failures=(*state.failures, failure))
    if event.action is Action.RESUME_FROM_OLDER:
        state = replace(state, ceiling=ceiling.lowered(state, event.cause))
    spoilt = spoilt_gpus(event.cause, event.evidence)
    if event.action is Action.RETRY_OTHER_GPU and not spoilt:
        state = replace(state, avoid=(*state.avoid, *event.evidence.gpus))
    pending = tuple((dict(state.spoilt) | spoilt).items())
    state = replace(state, phase=_phase_after(state, event), spoilt=pending)
    asides = [SetGpusAside((uuid,), reason) for uuid, reason in spoilt.items()]
    return state, (*asides, _next(state, event))


def failure_of(event: AttemptEnded) -> Failure:
    """The counted failure that an ended attempt leaves in the job's memory."""
    seen = event.evidence
    return Failure(event.cause, seen.step, seen.error_line, event.at_s, at_start=seen.at_start)


def spoilt_gpus(cause: Cause, seen: Evidence) -> dict[str, str]:
    """The GPUs that nobody should get after this attempt, each with the reason.

    A restart of the host resets them. A driver that was slow to answer us takes no GPU away from a
    worker that got to its end all the same.
    """
    if cause is Cause.HOST_REBOOTED:
        return {}
    well = cause in {Cause.COMPLETED, Cause.STOPPED}
    spoilt = {
        one.uuid: one.text
        for one in seen.gpu_troubles
        if one.ends_attempt or (one.spoils_gpu and not well)
    }
    if cause is Cause.UNKILLABLE:
        pids = ", ".join(map(str, seen.survivors))
        return dict.fromkeys(seen.gpus, f"process {pids} holds it and does not die of SIGKILL")
    if cause is Cause.GPU_HARDWARE and not spoilt and len(seen.gpus) == 1 and seen.root_error:
        return {seen.gpus[0]: seen.root_error.line}  # only the log tells, and it can be no other
    return spoilt


def _phase_after(state: JobState, event: AttemptEnded) -> State:
    fixed = {Action.HOLD: State.HOLDING, Action.GIVE_UP: State.FAILED}
    if event.action in fixed:
        waits = event.action is Action.HOLD and event.cause is Cause.DISK_FULL
        if waits and state.phase is State.STOPPING:
            return State.STOPPED  # whoever wants it to stop does not want it to wait for space
        return fixed[event.action]
    if event.action is Action.FINISH and event.cause is Cause.COMPLETED:
        return State.SUCCEEDED
    return State.STOPPED if state.phase is State.STOPPING else State.BACKING_OFF


def _next(state: JobState, event: AttemptEnded) -> Effect:
    if state.phase is State.BACKING_OFF:
        return WaitBackoff(event.delay_s)
    return leave_holding(event.cause) if state.phase is State.HOLDING else EndRun(state.phase)
