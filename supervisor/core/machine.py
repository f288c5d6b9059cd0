"""The behaviour of a job: one table of transitions, and the handlers that it names.

`step(state, event, now)` answers with the next state and the effects to carry out. It is the only
place where a job changes state. An event that the table does not know in a state raises
`IllegalEvent` and changes nothing. ARCHITECTURE.md's diagram is drawn from TRANSITIONS. The
handlers stand in `beginning`, `attempt` and `ending`.
"""

from collections.abc import Callable
from typing import Any

from supervisor.core import attempt, beginning, ending
from supervisor.core.beginning import Outcome
from supervisor.core.causes import State
from supervisor.core.events import (
    AttemptEnded,
    AttemptSpawned,
    BackoffElapsed,
    CheckpointChosen,
    CheckpointVerified,
    DeadlineDeferred,
    DeadlinePassed,
    Event,
    GpusAwaited,
    GpusLeased,
    GpusSetAside,
    GpuTroubleSeen,
    HoldRequired,
    JobCancelled,
    LimitExceeded,
    PhaseBegan,
    PhaseEnded,
    ProgressBegan,
    RunnerStarted,
    SignSeen,
    SpaceReturned,
    SpecChanged,
    StopRequested,
    WorkerExited,
    WorkerRevived,
)
from supervisor.core.item_events import (
    ItemQuarantined,
    ItemsPlanned,
    ItemsRequeued,
    ItemsSuspected,
    WorkerReplaced,
)
from supervisor.core.state import JobState


class IllegalEvent(Exception):
    """An event that cannot happen in this state: a fault of the runner, never of a user."""


S = State
Step = Callable[[JobState, Any, float], Outcome]

# (state, event) -> (handler, states it may lead to). Read it as the table it is.
TRANSITIONS: dict[tuple[State, type[Event]], tuple[Step, tuple[State, ...]]] = {
    (S.QUEUED, RunnerStarted): (beginning.taken_over, (S.QUEUED,)),
    (S.QUEUED, GpusSetAside): (beginning.set_aside, (S.QUEUED,)),
    (S.QUEUED, SpecChanged): (beginning.unchanged, (S.QUEUED,)),
    (S.QUEUED, GpusLeased): (beginning.leased, (S.QUEUED,)),
    (S.QUEUED, GpusAwaited): (beginning.awaited, (S.QUEUED,)),
    (S.QUEUED, CheckpointVerified): (beginning.verified, (S.QUEUED,)),
    (S.QUEUED, ItemsPlanned): (beginning.planned, (S.QUEUED, S.SUCCEEDED, S.HOLDING)),
    (S.QUEUED, ItemsRequeued): (beginning.unchanged, (S.QUEUED,)),
    (S.QUEUED, CheckpointChosen): (beginning.chosen, (S.RUNNING, S.HOLDING)),
    (S.QUEUED, HoldRequired): (beginning.hold, (S.HOLDING,)),
    (S.QUEUED, StopRequested): (beginning.stop_idle, (S.STOPPED,)),
    (S.QUEUED, JobCancelled): (beginning.cancelled, (S.CANCELLED,)),
    (S.RUNNING, RunnerStarted): (beginning.lost, (S.RUNNING,)),
    (S.RUNNING, GpusSetAside): (beginning.set_aside, (S.RUNNING,)),
    (S.RUNNING, ItemsRequeued): (beginning.unchanged, (S.RUNNING,)),
    (S.RUNNING, SpecChanged): (beginning.unchanged, (S.RUNNING,)),
    (S.RUNNING, AttemptSpawned): (attempt.spawned, (S.RUNNING,)),
    (S.RUNNING, ProgressBegan): (attempt.progress_began, (S.RUNNING,)),
    (S.RUNNING, SignSeen): (attempt.sign, (S.RUNNING,)),
    (S.RUNNING, CheckpointVerified): (attempt.saved, (S.RUNNING,)),
    (S.RUNNING, DeadlineDeferred): (attempt.deferred, (S.RUNNING,)),
    (S.RUNNING, WorkerRevived): (attempt.revived, (S.RUNNING,)),
    (S.RUNNING, PhaseBegan): (attempt.phase_began, (S.RUNNING,)),
    (S.RUNNING, PhaseEnded): (attempt.phase_ended, (S.RUNNING,)),
    (S.RUNNING, LimitExceeded): (attempt.exceeded, (S.RUNNING,)),
    (S.RUNNING, GpuTroubleSeen): (attempt.troubled, (S.RUNNING,)),
    (S.RUNNING, DeadlinePassed): (attempt.deadline, (S.RUNNING, S.STOPPING)),
    (S.RUNNING, StopRequested): (attempt.stop, (S.STOPPING,)),
    (S.RUNNING, ItemsSuspected): (beginning.unchanged, (S.RUNNING,)),
    (S.RUNNING, ItemQuarantined): (beginning.unchanged, (S.RUNNING,)),
    (S.RUNNING, WorkerReplaced): (beginning.unchanged, (S.RUNNING,)),
    (S.RUNNING, WorkerExited): (attempt.exited, (S.RUNNING,)),
    (S.RUNNING, AttemptEnded): (ending.ended, (S.SUCCEEDED, S.FAILED, S.BACKING_OFF, S.HOLDING)),
    (S.STOPPING, RunnerStarted): (beginning.lost, (S.RUNNING,)),
    (S.STOPPING, GpusSetAside): (beginning.set_aside, (S.STOPPING,)),
    (S.STOPPING, ItemsRequeued): (beginning.unchanged, (S.STOPPING,)),
    (S.STOPPING, SpecChanged): (beginning.unchanged, (S.STOPPING,)),
    (S.STOPPING, AttemptSpawned): (attempt.spawned_to_stop, (S.STOPPING,)),
    (S.STOPPING, ProgressBegan): (attempt.progress_began, (S.STOPPING,)),
    (S.STOPPING, SignSeen): (attempt.sign, (S.STOPPING,)),
    (S.STOPPING, CheckpointVerified): (attempt.saved, (S.STOPPING,)),
    (S.STOPPING, DeadlineDeferred): (attempt.deferred, (S.STOPPING,)),
    (S.STOPPING, WorkerRevived): (attempt.revived_to_stop, (S.STOPPING,)),
    (S.STOPPING, LimitExceeded): (attempt.exceeded, (S.STOPPING,)),
    (S.STOPPING, GpuTroubleSeen): (attempt.troubled, (S.STOPPING,)),
    (S.STOPPING, DeadlinePassed): (attempt.deadline, (S.STOPPING,)),
    (S.STOPPING, StopRequested): (attempt.stop_again, (S.STOPPING,)),
    (S.STOPPING, ItemsSuspected): (beginning.unchanged, (S.STOPPING,)),
    (S.STOPPING, ItemQuarantined): (beginning.unchanged, (S.STOPPING,)),
    (S.STOPPING, WorkerReplaced): (beginning.unchanged, (S.STOPPING,)),
    (S.STOPPING, WorkerExited): (attempt.exited, (S.STOPPING,)),
    (S.STOPPING, AttemptEnded): (ending.ended, (S.STOPPED, S.SUCCEEDED, S.FAILED, S.HOLDING)),
    (S.BACKING_OFF, RunnerStarted): (beginning.taken_over, (S.QUEUED,)),
    (S.BACKING_OFF, GpusSetAside): (beginning.set_aside, (S.BACKING_OFF,)),
    (S.BACKING_OFF, ItemsRequeued): (beginning.unchanged, (S.BACKING_OFF,)),
    (S.BACKING_OFF, SpecChanged): (beginning.unchanged, (S.BACKING_OFF,)),
    (S.BACKING_OFF, CheckpointVerified): (beginning.verified, (S.BACKING_OFF,)),
    (S.BACKING_OFF, BackoffElapsed): (beginning.begin, (S.QUEUED,)),
    (S.BACKING_OFF, StopRequested): (beginning.stop_idle, (S.STOPPED,)),
    (S.BACKING_OFF, JobCancelled): (beginning.cancelled, (S.CANCELLED,)),
    (S.SUCCEEDED, GpusSetAside): (beginning.set_aside, (S.SUCCEEDED,)),
    (S.SUCCEEDED, RunnerStarted): (beginning.taken_over, (S.QUEUED,)),
    (S.SUCCEEDED, ItemsRequeued): (beginning.unchanged, (S.SUCCEEDED,)),
    (S.SUCCEEDED, SpecChanged): (beginning.reopened, (S.QUEUED,)),
    (S.STOPPED, RunnerStarted): (beginning.taken_over, (S.QUEUED,)),
    (S.STOPPED, JobCancelled): (beginning.cancelled, (S.CANCELLED,)),
    (S.STOPPED, GpusSetAside): (beginning.set_aside, (S.STOPPED,)),
    (S.STOPPED, ItemsRequeued): (beginning.unchanged, (S.STOPPED,)),
    (S.STOPPED, SpecChanged): (beginning.unchanged, (S.STOPPED,)),
    (S.HOLDING, RunnerStarted): (beginning.begin_anew, (S.QUEUED,)),
    (S.HOLDING, SpaceReturned): (beginning.begin, (S.QUEUED,)),
    (S.HOLDING, StopRequested): (beginning.stop_idle, (S.STOPPED,)),
    (S.HOLDING, JobCancelled): (beginning.cancelled, (S.CANCELLED,)),
    (S.HOLDING, GpusSetAside): (beginning.set_aside, (S.HOLDING,)),
    (S.HOLDING, ItemsRequeued): (beginning.unchanged, (S.HOLDING,)),
    (S.HOLDING, SpecChanged): (beginning.unchanged, (S.HOLDING,)),
    (S.FAILED, RunnerStarted): (beginning.begin_anew, (S.QUEUED,)),
    (S.FAILED, JobCancelled): (beginning.cancelled, (S.CANCELLED,)),
    (S.FAILED, GpusSetAside): (beginning.set_aside, (S.FAILED,)),
    (S.FAILED, ItemsRequeued): (beginning.unchanged, (S.FAILED,)),
    (S.FAILED, SpecChanged): (beginning.unchanged, (S.FAILED,)),
    (S.CANCELLED, GpusSetAside): (beginning.set_aside, (S.CANCELLED,)),
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
