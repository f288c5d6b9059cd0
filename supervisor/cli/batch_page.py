"""What `show` and `report` say of a batch job, for people.

Owns the lines; what they say is gathered by batch.py.
"""

from collections.abc import Iterator, Sequence

import click

from supervisor.cli.text import INDENT, Column, labelled, paragraph, table, word
from supervisor.journal import AttemptRecord
from supervisor.journal.records import QuarantinedItem
from supervisor.views.batch import (
    Batch,
    batch_of_job,
    counts_words,
    items_done,
    items_per_s,
    leak_words,
)
from supervisor.views.chosen import Chosen
from supervisor.views.item_names import name_of
from supervisor.views.plain import counted, printable, short
from supervisor.views.times import lasting

SHOWN_ITEMS = 20

_REPORT = (
    Column("#", right=True),
    Column("RAN", right=True),
    Column("ITEMS", right=True),
    Column("ITEMS/S", right=True),
    Column("CAUSE"),
    Column("DECISION"),
)


def batch_lines(chosen: Chosen, batch: Batch) -> Iterator[str]:
    """Counts, where the results are, and what workers leaked."""
    folder = chosen.record.folder
    planned = batch.counts.total or batch.counts.gone
    yield labelled("items", counts_words(batch) if planned else "not counted yet")
    if batch.results.exists():
        yield labelled("results", short(batch.results, folder))
    if batch.sheet.exists():
        yield labelled("pictures", short(batch.sheet, folder))
    yield from _workers(batch)


def _workers(batch: Batch) -> Iterator[str]:
    seen = batch.replaced
    if not seen.count:
        return
    failed = f", {seen.failed} of them because they failed" if seen.failed else ""
    yield labelled("workers", f"{seen.count} replaced{failed}")
    leaks = leak_words(seen.host_leak_bytes, seen.gpu_leak_bytes)
    if leaks:
        yield labelled("leaks", leaks)


def quarantine_lines(chosen: Chosen, batch: Batch) -> Iterator[str]:
    """The quarantined items with cause and reason, the first of them."""
    if not batch.counts.quarantined:
        return
    found = chosen.journal.ledger(chosen.record.id).quarantined(limit=SHOWN_ITEMS)
    yield ""
    yield click.style("Quarantined", bold=True)
    for one in found:
        yield from _quarantined(one)
    more = batch.counts.quarantined - len(found)
    if more > 0:
        where = short(batch.quarantine, chosen.record.folder)
        yield click.style(f"{INDENT}and {more} more: {where}", dim=True)


def _quarantined(one: QuarantinedItem) -> Iterator[str]:
    yield f"{INDENT}{name_of(one.item)} {click.style(f'(item {one.number})', dim=True)}"
    yield paragraph(f"{INDENT}{click.style(one.cause, fg='red')}: {printable(one.reason)}")


def batch_report(chosen: Chosen, attempts: Sequence[AttemptRecord]) -> str:
    """The table of a batch job's attempts, and what its items cost."""
    rows = [_row(one) for one in attempts]
    batch = batch_of_job(chosen)
    lines = [table(_REPORT, rows), ""]
    if batch is None:
        return "\n".join(lines)
    rate = items_per_s(attempts)
    speed = "" if rate is None else f", {rate:.1f} items/s"
    lines.append(f"{counts_words(batch)}{speed}")
    seen = batch.replaced
    if seen.count:
        failed = f", {seen.failed} because they failed" if seen.failed else ""
        lines.append(f"{counted(seen.count, 'worker')} replaced{failed}")
    leaks = leak_words(seen.host_leak_bytes, seen.gpu_leak_bytes)
    if leaks:
        lines.append(f"replaced workers leaked {leaks}")
    return "\n".join(lines)


def _row(one: AttemptRecord) -> tuple[str, ...]:
    done = items_done(one)
    rate = items_per_s([one])
    return (
        str(one.number),
        lasting(one.ran_s),
        "-" if done is None else str(done),
        "-" if rate is None else f"{rate:.1f}",
        "-" if one.cause is None else word(one.cause),
        "-" if one.decision is None else word(one.decision),
    )
