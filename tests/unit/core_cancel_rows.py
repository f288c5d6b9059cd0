"""The rows of the table that tell of a job which its owner ends: data for test_core_machine."""

from dataclasses import replace

from supervisor.core.causes import State
from supervisor.core.effects import EndRun
from supervisor.core.events import JobCancelled
from tests.unit.core_rows import (
    ASIDE,
    BACKING_OFF,
    FAILED,
    HOLDING,
    LEFT,
    OVER,
    QUEUED,
    SET_ASIDE,
    SPOILS,
    STOPPED,
    Row,
)

CANCEL = JobCancelled("anna")
CANCELLED = replace(OVER, phase=State.CANCELLED, why="cancelled by anna")
GONE = {"phase": State.CANCELLED, "why": "cancelled by anna"}
LEAVE = EndRun(State.CANCELLED)

CANCEL_ROWS: list[Row] = [
    *((one, CANCEL, GONE, (LEAVE,)) for one in (QUEUED, BACKING_OFF, STOPPED, HOLDING, FAILED)),
    # What its last runner did not come to do for others is done now: no runner follows.
    (replace(FAILED, **SPOILS), CANCEL, GONE, (*SET_ASIDE, LEAVE)),
    (replace(CANCELLED, **SPOILS), ASIDE, LEFT, ()),
]
