"""`supervise checkpoint list`: what is on disk, what is known of it, which copies are safe.

Owns the verb. Nothing is read but names and times: what was verified is the journal's word.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from supervisor.checkpoint import (
    Found,
    Kind,
    Layout,
    Level,
    Outcome,
    Pin,
    Pins,
    Skipped,
    Verdict,
    find,
)
from supervisor.checkpoint.errors import PinDamaged
from supervisor.cli.fields import print_json
from supervisor.cli.jobs import chosen_job, job_argument, json_option
from supervisor.cli.on_disk import layout_of, no_layout
from supervisor.cli.show import headline
from supervisor.cli.text import Column, Cut, table
from supervisor.core.amounts import size
from supervisor.journal import CheckpointRecord
from supervisor.views.chosen import Chosen
from supervisor.views.fields import checkpoint_fields
from supervisor.views.plain import printable, short
from supervisor.views.times import ago, iso

NS_PER_S = 1e9
TIME_SLACK_S = 1e-3  # what is lost of a time that went through a float
UNSEEN = "not verified yet"

_FOUND = (
    Column("STEP", right=True),
    Column("WRITTEN"),
    Column("SIZE", right=True),
    Column("VERDICT"),
    Column("COPY"),
    Column("PATH", cut=Cut.HEAD),
)
_COPIES = (
    Column("STEP", right=True),
    Column("SIZE", right=True),
    Column("COPY OF", cut=Cut.HEAD),
    Column("KEPT IN"),
)


@dataclass(frozen=True, slots=True)
class Known:
    """Everything there is to list."""

    found: tuple[Found, ...]
    skipped: tuple[Skipped, ...]
    verdicts: dict[Path, Verdict]
    rejected: tuple[CheckpointRecord, ...]
    pins: tuple[Pin, ...]
    damaged: tuple[PinDamaged, ...]

    def pinned(self, found: Found) -> bool:
        """Whether a copy of these very bytes is kept."""
        return any(one.token == found.fingerprint.token for one in self.pins)


@click.command("list")
@job_argument
@json_option
@click.pass_obj
def list_command(state_dir: Path, job: str | None, *, as_json: bool) -> None:
    """List the checkpoints on disk, newest step first, and the copies that supervise keeps.

    VERDICT is what verification said of these very bytes; a file that changed since is not
    verified.
    """
    with chosen_job(state_dir, job) as chosen:
        layout = layout_of(chosen)
        if layout is None:
            if as_json:
                parts = ("found", "skipped", "rejected", "pins", "damaged_pins")
                print_json({"id": chosen.record.id, "root": None} | {one: [] for one in parts})
            else:
                click.echo(no_layout(chosen))
            return
        known = _known(chosen, layout)
        if as_json:
            print_json(_document(chosen, layout, known))
        else:
            click.echo("\n".join(_page(chosen, layout, known)))


def _known(chosen: Chosen, layout: Layout) -> Known:
    listing, pins = find(layout), Pins(chosen.folder.pins)
    records = chosen.journal.checkpoints(chosen.record.id)
    verdicts = {}
    for one in listing.found:
        verdict = _remembered(chosen, one) or _of_copy(one, pins.all()) or _of_record(one, records)
        if verdict is not None:
            verdicts[one.path] = verdict
    rejected = tuple(one for one in records if not one.verified)
    return Known(listing.found, listing.skipped, verdicts, rejected, pins.all(), pins.damaged())


def _remembered(chosen: Chosen, one: Found) -> Verdict | None:
    """What the runner remembered of these very bytes."""
    text = chosen.journal.recall(chosen.record.id, str(one.path), one.fingerprint.token)
    return None if text is None else Verdict.from_dict(json.loads(text))


def _of_copy(one: Found, pins: Iterable[Pin]) -> Verdict | None:
    """They were verified if there is a copy: nothing else is copied."""
    for pin in pins:
        if pin.token == one.fingerprint.token:
            reason = "verified before it was copied"
            return Verdict(Outcome.OK, pin.kind, pin.level, reason, pin.size_bytes)
    return None


def _of_record(one: Found, records: Iterable[CheckpointRecord]) -> Verdict | None:
    """The journal's word, where size and time are still those of that day."""
    seen = one.fingerprint
    for record in records:
        same_time = abs((record.written_s or 0) - seen.mtime_ns / NS_PER_S) < TIME_SLACK_S
        same = record.path == str(one.path) and record.size_bytes == seen.size_bytes
        if record.verified and same and same_time:
            level = Level(record.level)
            reason = "verified when it was new"
            return Verdict(Outcome.OK, Kind(record.kind), level, reason, seen.size_bytes)
    return None


def _page(chosen: Chosen, layout: Layout, known: Known) -> Iterator[str]:
    folder = chosen.record.folder
    yield headline(chosen)
    yield ""
    if known.found:
        yield table(_FOUND, [_row(one, known, folder) for one in known.found])
    else:
        yield f"no checkpoint in {short(layout.root, folder)} is named like {layout.glob}"
    for one in known.skipped:
        yield f"passed over: {short(one.path, folder)}: {printable(one.reason)}"
    if known.rejected:
        yield "\n" + click.style("Did not verify", bold=True)
    for bad in known.rejected:
        kept = f"; kept as {short(bad.set_aside_to, folder)}" if bad.set_aside_to else ""
        yield f"  {short(bad.path, folder)}: {printable(bad.reason)}{kept}"
    if known.pins:
        yield "\n" + table(_COPIES, [_copy(one) for one in known.pins])
    for damage in known.damaged:
        yield printable(str(damage))


def _row(one: Found, known: Known, folder: str) -> tuple[str, ...]:
    return (
        str(one.step),
        ago(one.fingerprint.mtime_ns / NS_PER_S),
        size(one.fingerprint.size_bytes),
        verdict_word(known.verdicts.get(one.path)),
        "kept" if known.pinned(one) else "-",
        short(one.path, folder),
    )


def verdict_word(verdict: Verdict | None) -> str:
    """`verified`, `stable`, `bad` ... in one coloured word."""
    if verdict is None:
        return UNSEEN
    if verdict.ok:
        return click.style(str(verdict.level), fg="green")
    return click.style(str(verdict.outcome), fg="red")


def _copy(one: Pin) -> tuple[str, ...]:
    return str(one.step), size(one.size_bytes), printable(str(one.relative)), str(one.folder)


def _document(chosen: Chosen, layout: Layout, known: Known) -> dict[str, Any]:
    return {
        "id": chosen.record.id,
        "root": str(layout.root),
        "found": [_found_fields(one, known) for one in known.found],
        "skipped": [{"path": str(one.path), "reason": one.reason} for one in known.skipped],
        "rejected": [checkpoint_fields(one) for one in known.rejected],
        "pins": [_pin_fields(one) for one in known.pins],
        "damaged_pins": [{"folder": str(one.folder), "reason": one.cause} for one in known.damaged],
    }


def _found_fields(one: Found, known: Known) -> dict[str, Any]:
    verdict = known.verdicts.get(one.path)
    return {
        "path": str(one.path),
        "step": one.step,
        "size_bytes": one.fingerprint.size_bytes,
        "written_at": iso(one.fingerprint.mtime_ns / NS_PER_S),
        "pinned": known.pinned(one),
    } | verdict_fields(verdict)


def verdict_fields(verdict: Verdict | None) -> dict[str, Any]:
    """What verification said; all null where it has not looked."""
    return {
        "outcome": None if verdict is None else verdict.outcome,
        "level": None if verdict is None else verdict.level,
        "kind": None if verdict is None else verdict.kind,
        "reason": None if verdict is None else verdict.reason,
    }


def _pin_fields(one: Pin) -> dict[str, Any]:
    return {
        "step": one.step,
        "copy_of": str(one.relative),
        "folder": str(one.folder),
        "payload": str(one.payload),
        "size_bytes": one.size_bytes,
        "kind": one.kind,
        "level": one.level,
    }
