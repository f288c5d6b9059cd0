"""Each event as one sentence for people.

Owns the wording of the terminal's plain lines and of the runner's log. Pure.
"""

from collections.abc import Callable
from typing import Any

from supervisor.core.amounts import seconds, size
from supervisor.core.causes import Action, Cause, State
from supervisor.core.events import (
    AttemptEnded,
    AttemptSpawned,
    CheckpointChosen,
    CheckpointVerified,
    DeadlinePassed,
    Event,
    GpusAwaited,
    GpusLeased,
    GpusSetAside,
    GpuTroubleSeen,
    HoldRequired,
    JobCancelled,
    LimitExceeded,
    RunnerStarted,
    SpaceReturned,
    SpecChanged,
    StopRequested,
    WorkerRevived,
)
from supervisor.core.evidence import DeadlineName
from supervisor.core.state import JobState

_RESUMING = {Action.RESUME, Action.RESUME_FROM_OLDER, Action.RETRY_OTHER_GPU}


def at_step(step: int | None) -> str:
    """`step 540`, or where no step is known, the beginning."""
    return "the beginning" if step is None else f"step {step}"


def _started(_event: RunnerStarted, state: JobState) -> str | None:
    if state.phase is State.RUNNING:
        return f"taking over: the runner of attempt {state.attempt} is gone"
    return f"taking over after attempt {state.attempt}" if state.attempt else None


def _changed(event: SpecChanged, _state: JobState) -> str:
    return f"job.yaml changed in {len(event.differences)} place(s); continuing with the new one"


def _chosen(event: CheckpointChosen, state: JobState) -> str:
    bad = "".join(
        f"checkpoint {one.path} is not used: {one.reason}"
        + (f"; kept as {one.set_aside_to}" if one.set_aside_to else "")
        + "\n"
        for one in event.rejected
    )
    if state.phase is State.HOLDING:
        return f"{bad}holding: {state.why}"
    if event.path is None:
        lost = state.best_checkpoint
        gone = "" if lost is None else f" (the snapshots in memory, up to step {lost}, are gone)"
        return f"{bad}attempt {state.attempt} starts from the beginning{gone}"
    how = ", restored from the supervisor's copy" if event.restored else ""
    how = ", a snapshot in memory" if event.tier == "memory" else how
    return f"{bad}attempt {state.attempt} resumes from {at_step(event.step)} ({event.path}{how})"


def _leased(event: GpusLeased, _state: JobState) -> str:
    refused = "".join(f"GPU {one.uuid} is not used: {one.reason}\n" for one in event.refused)
    waited = f" after {seconds(event.waited_s)}" if event.waited_s >= 1 else ""
    return f"{refused}leased {', '.join(event.gpus)}{waited}"


def _awaited(event: GpusAwaited, _state: JobState) -> str:
    each = "".join(f"\n  {one.reason}" for one in event.refused)
    return f"waiting for GPUs: {event.reason}{each}"


def _set_aside(event: GpusSetAside, _state: JobState) -> str:
    gpus = ", ".join(event.gpus)
    return f"set aside: {gpus}; nobody gets it before `supervise gpus --release` or a reboot"


def _space_returned(_event: SpaceReturned, _state: JobState) -> str:
    return "there is room on the disk again: going on"


def _revived(_event: WorkerRevived, _state: JobState) -> str:
    return "it moved while its stacks were saved: it is not killed"


def _exceeded(event: LimitExceeded, _state: JobState) -> str:
    breach = event.breach
    what = f"{size(breach.used_bytes)} used, resources.{breach.limit} is {size(breach.limit_bytes)}"
    where = f" on {breach.where}" if breach.where else ""
    then = "asking the worker to save and leave" if breach.limit.asks else "killing the worker"
    return f"{what}{where}: {then}"


def _troubled(event: GpuTroubleSeen, _state: JobState) -> str:
    then = ": asking the worker to leave" if event.trouble.ends_attempt else ""
    return f"GPU {event.trouble.uuid}: {event.trouble.text}{then}"


def _held(event: HoldRequired, _state: JobState) -> str:
    then = "; it goes on by itself when there is room" if event.cause is Cause.DISK_FULL else ""
    return f"holding: {event.reason}{then}"


def _spawned(event: AttemptSpawned, _state: JobState) -> str:
    return f"attempt {event.number} is running (process {event.pid})"


def _verified(event: CheckpointVerified, _state: JobState) -> str:
    pinned = "" if event.pinned else "; no room for a copy of it"
    how = "verified" if event.level == "verified" else "complete (its format has no checksum)"
    if event.tier == "memory":
        return f"snapshot in memory, {at_step(event.step)}, {how} ({size(event.size_bytes)})"
    what = f"{event.kind}, {size(event.size_bytes)}{pinned}"
    return f"checkpoint {at_step(event.step)} {how} ({what})"


def _deadline(event: DeadlinePassed, _state: JobState) -> str:
    if event.name is DeadlineName.STOP:
        return f"it did not stop within {seconds(event.timeout_s)}: killing it"
    if event.name is DeadlineName.TOTAL:
        return f"the job's whole time ({seconds(event.timeout_s)}) is used up: stopping it"
    if event.seen:
        return f"{event.seen}: saving where it stands, then killing it"
    return f"no sign of progress for {seconds(event.timeout_s)}: saving its stacks, then killing it"


def _stop(event: StopRequested, state: JobState) -> str:
    if event.forced:
        return f"{event.source} again: killing the worker"
    if state.phase is State.STOPPING:
        grace = seconds(state.timeouts.stop_s)
        return f"{event.source}: asking the worker to stop ({grace} grace; once more to kill it)"
    return f"{event.source}: stopping"


def _cancelled(event: JobCancelled, _state: JobState) -> str:
    return f"{event.source}: the job is cancelled; it never runs again"


def _ended(event: AttemptEnded, state: JobState) -> str:
    ran = seconds(event.ran_s)
    ended = f"attempt {event.number} ended after {ran}: {event.cause}, {event.reason}"
    if event.action in _RESUMING and state.phase is State.BACKING_OFF:
        wait = f" in {seconds(event.delay_s)}" if event.delay_s else ""
        return f"{ended}\ndecision: {event.action}{wait} ({event.decision_reason})"
    return f"{ended}\ndecision: {event.action} ({event.decision_reason}); the job {_is(state)}"


def _is(state: JobState) -> str:
    return {
        State.SUCCEEDED: "succeeded",
        State.FAILED: "failed",
        State.HOLDING: "is held",
        State.STOPPED: "is stopped and can be resumed",
    }.get(state.phase, f"is {state.phase}")


_SENTENCES: dict[type[Event], Callable[[Any, JobState], str | None]] = {
    RunnerStarted: _started,
    SpecChanged: _changed,
    CheckpointChosen: _chosen,
    HoldRequired: _held,
    GpusLeased: _leased,
    GpusAwaited: _awaited,
    GpusSetAside: _set_aside,
    SpaceReturned: _space_returned,
    WorkerRevived: _revived,
    LimitExceeded: _exceeded,
    GpuTroubleSeen: _troubled,
    AttemptSpawned: _spawned,
    CheckpointVerified: _verified,
    DeadlinePassed: _deadline,
    StopRequested: _stop,
    JobCancelled: _cancelled,
    AttemptEnded: _ended,
}


def sentence(event: Event, state: JobState) -> str | None:
    """What to tell a person of an event, given the state after it; None for inner matters."""
    words = _SENTENCES.get(type(event))
    return words(event, state) if words else None
