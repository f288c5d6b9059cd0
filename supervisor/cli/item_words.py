"""Each event of a batch job as one sentence, with its items called by their names.

Owns the wording for the views of a run; `supervisor.runner.words` has all other events. Pure but
for the names, which it is given.
"""

from collections.abc import Callable
from typing import Any

from supervisor.core.amounts import seconds, size
from supervisor.core.causes import Cause
from supervisor.core.events import AttemptSpawned, CheckpointChosen, Event
from supervisor.core.item_events import (
    ItemQuarantined,
    ItemsPlanned,
    ItemsRequeued,
    ItemsSuspected,
    WorkerReplaced,
)
from supervisor.core.state import JobState
from supervisor.runner.words import sentence
from supervisor.views.item_names import NameOf
from supervisor.views.plain import counted

__all__ = ["counted", "item_sentence", "named", "replaced_words"]

NAMED = 3  # so many items are named in a sentence


def named(items: tuple[int, ...], name: NameOf) -> str:
    """`a.jpg, b.jpg, c.jpg and 5 more`."""
    told = ", ".join(name(one) for one in items[:NAMED])
    more = len(items) - NAMED
    return f"{told} and {more} more" if more > 0 else told


def _planned(event: ItemsPlanned, _name: NameOf) -> str:
    parts = [counted(event.total)]
    if 0 < event.added < event.total:
        parts.append(f"{event.added} of them new")
    if event.gone:
        parts.append(f"{event.gone} no longer there")
    if event.repeated:
        parts.append(f"{event.repeated} named more than once")
    if event.quarantined:
        parts.append(f"{event.quarantined} quarantined")
    parts.append(f"{event.left} to do" if event.left else "nothing is left to do")
    return ", ".join(parts)


def _suspected(event: ItemsSuspected, name: NameOf) -> str:
    if len(event.items) == 1:
        return (
            f"{name(event.items[0])} failed: {event.cause}, {event.reason}; "
            "it is tried once more, alone"
        )
    return (
        f"one of {len(event.items)} items failed ({named(event.items, name)}): {event.cause}, "
        f"{event.reason}; they are tried apart"
    )


def _quarantined(event: ItemQuarantined, name: NameOf) -> str:
    return f"quarantined {name(event.item)}: {event.cause}, {event.reason}"


def _requeued(event: ItemsRequeued, name: NameOf) -> str:
    return f"to be tried again: {named(event.items, name)}"


def replaced_words(event: WorkerReplaced) -> str:
    """How a worker ended, after what, and what it left behind."""
    after = f"after {counted(event.items)} in {seconds(event.ran_s)}"
    growths = [
        f"{size(growth / event.items)} of {what}"
        for growth, what in (
            (event.host_growth_bytes, "memory"),
            (event.gpu_growth_bytes, "GPU memory"),
        )
        if growth and event.items
    ]
    leaks = f"; it leaked {' and '.join(growths)} an item" if growths else ""
    if event.cause is Cause.COMPLETED:
        return f"worker {event.worker} replaced {after}: {event.reason}{leaks}"
    return f"worker {event.worker} ended {after}: {event.cause}, {event.reason}{leaks}"


def _replaced(event: WorkerReplaced, _name: NameOf) -> str | None:
    """Nothing of a planned end that nobody need hear of: with fresh children there are many."""
    is_routine = event.cause is Cause.COMPLETED and not (
        event.host_growth_bytes or event.gpu_growth_bytes
    )
    return None if is_routine else replaced_words(event)


def _spawned(event: AttemptSpawned, _name: NameOf) -> str:
    return f"attempt {event.number} is running"


_SENTENCES: dict[type[Event], Callable[[Any, NameOf], str | None]] = {
    ItemsPlanned: _planned,
    ItemsSuspected: _suspected,
    ItemQuarantined: _quarantined,
    ItemsRequeued: _requeued,
    WorkerReplaced: _replaced,
    AttemptSpawned: _spawned,
}


def item_sentence(event: Event, state: JobState, name: NameOf) -> str | None:
    """What to tell a person of an event of a batch job; None for inner matters."""
    words = _SENTENCES.get(type(event))
    if words is not None:
        return words(event, name)
    if isinstance(event, CheckpointChosen):  # it has none
        return None
    return sentence(event, state)
