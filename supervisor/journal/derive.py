"""From an event to the rows that follow from it: one table.

Owns which statement an event runs; never opens a database.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from supervisor.core.causes import State
from supervisor.core.events import (
    AttemptEnded,
    AttemptSpawned,
    CheckpointChosen,
    CheckpointVerified,
    Event,
    ProgressBegan,
    RunnerStarted,
    WorkerExited,
)
from supervisor.core.item_events import ItemQuarantined, ItemsRequeued, ItemsSuspected
from supervisor.core.state import JobState
from supervisor.journal.codec import encode

Row = tuple[str, dict[str, Any]]


def _as_is(statement: str) -> Callable[[Any, JobState], Iterator[Row]]:
    def rows(event: Any, _state: JobState) -> Iterator[Row]:  # noqa: ANN401 - any event class
        yield statement, asdict(event)

    return rows


def _chosen(event: CheckpointChosen, state: JobState) -> Iterator[Row]:
    for one in event.rejected:
        yield "checkpoint_rejected", asdict(one)
    if state.phase is State.RUNNING:
        yield (
            "attempt_chosen",
            {
                "number": state.attempt,
                "path": event.path,
                "step": event.step,
                "written_at_s": event.written_at_s,
            },
        )


def _ended(event: AttemptEnded, _state: JobState) -> Iterator[Row]:
    fields = {
        "number": event.number,
        "ran_s": event.ran_s,
        "cause": event.cause,
        "reason": event.reason,
        "action": event.action,
        "decision_reason": event.decision_reason,
        "step": event.evidence.step,
        "evidence": encode(event.evidence),
    }
    yield "attempt_ended", fields


def _suspected(event: ItemsSuspected, _state: JobState) -> Iterator[Row]:
    for item in event.items:
        yield "item_suspected", {"item": item}


def _quarantined(event: ItemQuarantined, _state: JobState) -> Iterator[Row]:
    yield "item_quarantined", {"item": event.item}
    yield "item_set_aside", asdict(event)


def _requeued(event: ItemsRequeued, _state: JobState) -> Iterator[Row]:
    for item in event.items:
        yield "item_requeued", {"item": item}


_TABLE: dict[type[Event], Callable[[Any, JobState], Iterator[Row]]] = {
    RunnerStarted: _as_is("runner_started"),
    CheckpointChosen: _chosen,
    CheckpointVerified: _as_is("checkpoint_verified"),
    AttemptSpawned: _as_is("attempt_spawned"),
    ProgressBegan: _as_is("attempt_progress"),
    WorkerExited: _as_is("attempt_exited"),
    AttemptEnded: _ended,
    ItemsSuspected: _suspected,
    ItemQuarantined: _quarantined,
    ItemsRequeued: _requeued,
}


def derived_rows(event: Event, state: JobState) -> Iterator[Row]:
    """Statements, with their parameters, that bring the derived tables up to date.

    `state` is the job's state after the event.
    """
    derive = _TABLE.get(type(event))
    if derive is not None:
        yield from derive(event, state)
    yield "update_job", {"state": state.phase, "why": state.why, "step": state.step}
