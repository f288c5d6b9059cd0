"""What is said of a batch job's items.

Owns the gathering: counts, results, quarantine, what workers leaked. Reads the journal only; a
million items are counted there, and none of them is read here.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.core.amounts import size
from supervisor.core.causes import Cause
from supervisor.journal import AttemptRecord
from supervisor.journal.records import Counts, EventRecord, QuarantinedItem
from supervisor.views.chosen import Chosen
from supervisor.views.fields import Fields
from supervisor.views.frozen import Said, said
from supervisor.views.times import iso

RESULTS, QUARANTINE, SHEET = "results.jsonl", "quarantine.jsonl", "index.html"


@dataclass(frozen=True, slots=True)
class Replaced:
    """The workers that ended before their job did, and what an item left behind in them.

    `items` is how many they finished together. The leaks are bytes an item, None where not known.
    """

    count: int = 0
    failed: int = 0
    items: int = 0
    host_leak_bytes: float | None = None
    gpu_leak_bytes: float | None = None
    last_reason: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch job as it stands."""

    said: Said
    counts: Counts
    replaced: Replaced

    @property
    def left(self) -> int:
        """Items that are still to be done, suspects among them."""
        return self.counts.todo + self.counts.suspect

    @property
    def results(self) -> Path:
        """The file of results."""
        return Path(self.said.out) / RESULTS

    @property
    def quarantine(self) -> Path:
        """The file of quarantined items."""
        return Path(self.said.out) / QUARANTINE

    @property
    def sheet(self) -> Path:
        """The page with all pictures, where the job makes one."""
        return Path(self.said.out) / SHEET


def batch_of_job(chosen: Chosen) -> Batch | None:
    """The batch job that is meant; None where it is another kind of job."""
    found = said(chosen.record)
    if not found.is_batch:
        return None
    counts = chosen.journal.ledger(chosen.record.id).counts()
    return Batch(found, counts, _replaced(chosen))


def _replaced(chosen: Chosen) -> Replaced:
    count = failed = items = host = gpu = 0
    reason = ""
    for one in chosen.journal.events_of_kind(chosen.record.id, "WorkerReplaced"):
        body = body_of(one)
        count += 1
        failed += body.get("cause") != Cause.COMPLETED
        items += body.get("items") or 0
        host += body.get("host_growth_bytes") or 0
        gpu += body.get("gpu_growth_bytes") or 0
        reason = str(body.get("reason") or reason)
    if not items:
        return Replaced(count, failed, items, last_reason=reason)
    leaks = (host / items if host else None, gpu / items if gpu else None)
    return Replaced(count, failed, items, *leaks, last_reason=reason)


def body_of(event: EventRecord) -> dict[str, Any]:
    """The fields of an event; none where they cannot be read."""
    try:
        found = json.loads(event.body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def items_done(attempt: AttemptRecord) -> int | None:
    """How many items an attempt finished, None while it runs or where nobody counted."""
    try:
        found = json.loads(attempt.evidence or "{}").get("items_done")
    except (ValueError, AttributeError):
        return None
    return found if isinstance(found, int) else None


def items_per_s(attempts: Iterable[AttemptRecord]) -> float | None:
    """Items finished in a second of the attempts' running time; None where none is known."""
    done, ran_s = 0, 0.0
    for one in attempts:
        count = items_done(one)
        if count is not None and one.ran_s:
            done, ran_s = done + count, ran_s + one.ran_s
    return done / ran_s if done and ran_s else None


def counts_words(batch: Batch) -> str:
    """`998 of 1000 done, 2 quarantined`, as far as there is something to say."""
    counts = batch.counts
    parts = [
        f"{number} {word}"
        for number, word in (
            (batch.left, "left"),
            (counts.suspect, "of them suspect"),
            (counts.quarantined, "quarantined"),
            (counts.gone, "gone"),
            (counts.repeated, "named more than once"),
        )
        if number
    ]
    return ", ".join([f"{counts.done} of {counts.total} done", *parts])


def leak_words(host_bytes: float | None, gpu_bytes: float | None) -> str:
    """`1.2 MiB of memory and 3.0 MiB of GPU memory an item`, or nothing where none is known."""
    parts = [
        f"{size(leak)} of {what}"
        for leak, what in ((host_bytes, "memory"), (gpu_bytes, "GPU memory"))
        if leak is not None
    ]
    return f"{' and '.join(parts)} an item" if parts else ""


def item_fields(counts: Counts) -> Fields:
    """The counts, for machines."""
    return {
        "total": counts.total,
        "done": counts.done,
        "left": counts.todo + counts.suspect,
        "suspect": counts.suspect,
        "quarantined": counts.quarantined,
        "gone": counts.gone,
        "repeated": counts.repeated,
    }


def quarantined_fields(one: QuarantinedItem) -> Fields:
    """A quarantined item; `item` is the value itself."""
    try:
        item = json.loads(one.item)
    except ValueError:
        item = one.item
    return {
        "number": one.number,
        "item": item,
        "cause": one.cause,
        "reason": one.reason,
        "detail": one.detail,
        "attempt": one.attempt,
        "at": iso(one.at_s),
    }


def batch_fields(chosen: Chosen) -> Fields:
    """What `show --json` has of a batch job beyond any other; for another job, nulls."""
    batch = batch_of_job(chosen)
    if batch is None:
        return {"items": None, "quarantined": None, "results": None, "workers_replaced": None}
    ledger = chosen.journal.ledger(chosen.record.id)
    return {
        "items": item_fields(batch.counts),
        "quarantined": [quarantined_fields(one) for one in ledger.quarantined()],
        "results": str(batch.results),
        "workers_replaced": replaced_fields(batch.replaced),
    }


def replaced_fields(seen: Replaced) -> Fields:
    """The replaced workers, for machines."""
    return {
        "count": seen.count,
        "failed": seen.failed,
        "host_leak_bytes": seen.host_leak_bytes,
        "gpu_leak_bytes": seen.gpu_leak_bytes,
    }


def batch_totals(chosen: Chosen, attempts: Sequence[AttemptRecord]) -> Fields | None:
    """What `report --json` has of a batch job's items; None for another job."""
    batch = batch_of_job(chosen)
    if batch is None:
        return None
    return {
        "items": item_fields(batch.counts),
        "items_per_s": items_per_s(attempts),
        "workers_replaced": replaced_fields(batch.replaced),
    }
