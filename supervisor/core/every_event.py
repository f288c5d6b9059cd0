"""All kinds of events that a journal may hold, by their stored names.

Owns the registry. A kind that was ever stored stays in it.
"""

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

EVENTS: dict[str, type[Event]] = {
    kind.__name__: kind
    for kind in (
        RunnerStarted,
        SpecChanged,
        CheckpointVerified,
        CheckpointChosen,
        HoldRequired,
        GpusLeased,
        GpusAwaited,
        GpusSetAside,
        SpaceReturned,
        AttemptSpawned,
        ProgressBegan,
        SignSeen,
        DeadlinePassed,
        DeadlineDeferred,
        WorkerRevived,
        LimitExceeded,
        GpuTroubleSeen,
        StopRequested,
        JobCancelled,
        WorkerExited,
        AttemptEnded,
        BackoffElapsed,
        ItemsPlanned,
        ItemsSuspected,
        ItemQuarantined,
        ItemsRequeued,
        WorkerReplaced,
    )
}
