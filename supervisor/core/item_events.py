"""What happened to the items of a batch job: the facts that the journal keeps of them.

Owns this part of the vocabulary. Items are known by their numbers, from 1. A finished item is no
event, for there may be millions: it is settled in the journal's ledger.
"""

from dataclasses import dataclass

from supervisor.core.causes import Cause
from supervisor.core.events import Event


@dataclass(frozen=True, slots=True)
class ItemsPlanned(Event):
    """The source of the items was read to its end.

    `total` are all that are known, `added` those that were not known before, `gone` those that the
    source names no more though they were never done, `repeated` how often it named one again.
    `left` are still to be done, `quarantined` are not.
    """

    total: int
    added: int
    gone: int
    repeated: int
    left: int
    quarantined: int = 0


@dataclass(frozen=True, slots=True)
class ItemsSuspected(Event):
    """One of these items made its worker fail: they are tried again, apart from all others."""

    number: int
    worker: int
    items: tuple[int, ...]
    cause: Cause
    reason: str


@dataclass(frozen=True, slots=True)
class ItemQuarantined(Event):
    """An item failed alone, in a worker of its own, too: it is not tried again by itself.

    `detail` is its traceback, or the last lines of its worker's log.
    """

    number: int
    worker: int
    item: int
    cause: Cause
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ItemsRequeued(Event):
    """A person wants these items to be tried again."""

    items: tuple[int, ...]
    source: str = ""


@dataclass(frozen=True, slots=True)
class WorkerReplaced(Event):
    """A worker of a batch job ended before the job did, and another takes its place.

    `items` is how many it finished; the growths are those of its memory over its first items.
    """

    number: int
    worker: int
    cause: Cause
    reason: str
    items: int
    ran_s: float
    host_growth_bytes: int = 0
    gpu_growth_bytes: int = 0
