"""Rows of the derived tables, as reading verbs see them.

Owns their types; says nothing about how they came to be. Times are wall clock, epoch seconds.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job."""

    id: str
    name: str
    folder: str
    spec: str
    created_s: float
    updated_s: float
    state: str
    why: str
    step: int | None
    total: int | None
    runner_pid: int | None
    runner_ticks: int | None
    boot_id: str | None


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt. What has not happened yet is None."""

    job_id: str
    number: int
    chosen_s: float
    resumed_path: str | None
    resumed_step: int | None
    resumed_written_s: float | None
    pid: int | None
    start_ticks: int | None
    spawned_s: float | None
    progress_s: float | None
    exited_s: float | None
    exit_code: int | None
    signal: int | None
    ended_s: float | None
    ran_s: float | None
    cause: str | None
    reason: str | None
    decision: str | None
    decision_reason: str | None
    step: int | None
    evidence: str | None


@dataclass(frozen=True, slots=True)
class CheckpointRecord:
    """One checkpoint that verified, or one that did not."""

    seq: int
    job_id: str
    at_s: float
    path: str
    step: int | None
    verified: int
    kind: str
    level: str
    size_bytes: int | None
    written_s: float | None
    pinned: int
    reason: str
    set_aside_to: str | None


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One stored event, its body still JSON."""

    seq: int
    at_s: float
    kind: str
    body: str


@dataclass(frozen=True, slots=True)
class Counts:
    """How many items of a batch job are in which state.

    `total` are all but the gone ones; `repeated` is how often the last plan named one again.
    """

    total: int
    done: int
    todo: int
    suspect: int
    quarantined: int
    gone: int
    repeated: int


@dataclass(frozen=True, slots=True)
class QuarantinedItem:
    """An item that is not tried again by itself. `item` is its canonical JSON text.

    `detail` is its traceback or the end of its worker's log; `attempt` when that was.
    """

    number: int
    item: str
    cause: str
    reason: str
    detail: str
    at_s: float
    attempt: int
