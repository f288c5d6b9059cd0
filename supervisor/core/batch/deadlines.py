"""By when a worker must have done something: startup, silence, item and chunk.

Owns the arithmetic; reads no clock. Instants are of the runner's monotonic clock.
"""

from dataclasses import dataclass
from enum import StrEnum

from supervisor.core.batch.state import BatchState, Worker
from supervisor.core.deadlines import Timeouts


class Wait(StrEnum):
    """What a worker may be late with."""

    STARTUP = "startup"
    HEARTBEAT = "heartbeat"
    ITEM = "item"
    CHUNK = "chunk"


@dataclass(frozen=True, slots=True)
class Due:
    """A worker, what it must have done, by when, and what is allowed for it."""

    at: float
    serial: int
    wait: Wait
    timeout_s: float


def of_worker(state: BatchState, worker: Worker, timeouts: Timeouts) -> Due | None:
    """What comes first for a worker; None where it may take for ever, or is being ended."""
    if worker.ended_for:
        return None
    rules = state.rules
    heartbeat_s = state.cadence.timeout_s if timeouts.heartbeat_auto else timeouts.heartbeat_s
    waits: list[tuple[Wait, float | None, float | None]] = []
    if not worker.ready:
        waits.append((Wait.STARTUP, worker.started_at, timeouts.startup_s))
    elif worker.chunk or worker.dismissed:
        waits.append((Wait.HEARTBEAT, worker.silent_since, heartbeat_s))
        waits.append((Wait.ITEM, worker.item_since, rules.item_s))
        if worker.chunk:
            waits.append((Wait.CHUNK, worker.chunk_since, rules.chunk_s))
    found = [
        Due(since + allowed_s, worker.serial, wait, allowed_s)
        for wait, since, allowed_s in waits
        if since is not None and allowed_s is not None
    ]
    return min(found, key=lambda due: due.at, default=None)


def first(state: BatchState, timeouts: Timeouts) -> Due | None:
    """What comes first of all."""
    each = (of_worker(state, worker, timeouts) for worker in state.workers)
    return min((due for due in each if due is not None), key=lambda due: due.at, default=None)
