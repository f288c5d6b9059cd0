"""The rows of the table of transitions that only batch jobs use: data for test_core_machine."""

from dataclasses import replace

from supervisor.core.causes import Action, Cause, State
from supervisor.core.effects import ChooseCheckpoint, EndRun, LeaseGpus, WaitBackoff
from supervisor.core.events import Event
from supervisor.core.evidence import Evidence
from supervisor.core.item_events import (
    ItemQuarantined,
    ItemsPlanned,
    ItemsRequeued,
    ItemsSuspected,
    WorkerReplaced,
)
from tests.unit.core_rows import (
    AFTER,
    BACKING_OFF,
    COUNTED,
    EXITED,
    FAILED,
    HOLDING,
    QUEUED,
    RUNNING,
    STARTED,
    STOPPED,
    STOPPING,
    SUCCEEDED,
    Row,
    ended,
)

S = State

PLANNED = ItemsPlanned(total=10, added=10, gone=0, repeated=0, left=10)
NOTHING_LEFT = replace(PLANNED, added=0, left=0)
SOME_QUARANTINED = replace(NOTHING_LEFT, quarantined=2)
REQUEUED = ItemsRequeued((3, 7), "supervise retry")
OF_ITEMS: list[Event] = [
    ItemsSuspected(3, 1, (4, 5), Cause.SIGNAL, "killed by SIGSEGV"),
    ItemQuarantined(3, 2, 4, Cause.SIGNAL, "killed by SIGSEGV", "log"),
    WorkerReplaced(3, 1, Cause.SIGNAL, "killed by SIGSEGV", 3, 1.5),
]
BATCH_EVENTS: list[Event] = [PLANNED, REQUEUED, *OF_ITEMS]

PROGRESS = replace(ended(Action.RESUME, counted=True), evidence=Evidence(step=410, items_done=1))

BATCH_ROWS: list[Row] = [
    (QUEUED, PLANNED, {}, ()),
    (replace(QUEUED, attempt=0), NOTHING_LEFT, {}, ()),  # its first attempt says that it is done
    (QUEUED, NOTHING_LEFT, {"phase": S.SUCCEEDED, "why": ""}, (EndRun(S.SUCCEEDED),)),
    (
        QUEUED,
        SOME_QUARANTINED,
        {"phase": S.HOLDING, "why": "2 of 10 items are quarantined"},
        (EndRun(S.HOLDING),),
    ),
    (SUCCEEDED, STARTED, {"phase": S.QUEUED}, (ChooseCheckpoint(None),)),
    (replace(SUCCEEDED, gpus_wanted=1), STARTED, {"phase": S.QUEUED}, (LeaseGpus(),)),
    *((state, REQUEUED, {}, ()) for state in (QUEUED, RUNNING, STOPPING, BACKING_OFF)),
    *((state, REQUEUED, {}, ()) for state in (STOPPED, HOLDING, FAILED, SUCCEEDED)),
    *((state, event, {}, ()) for state in (RUNNING, STOPPING) for event in OF_ITEMS),
    (
        EXITED,  # what it did before it failed refunds the failures before
        PROGRESS,
        AFTER | {"phase": S.BACKING_OFF, "failures": (replace(COUNTED[-1], error_line=None),)},
        (WaitBackoff(0.0),),
    ),
]
