"""`supervise events`: what the journal has of a job, one line an event.

Owns the verb. With --json, one JSON object a line, complete; without, what a person looks for.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from supervisor.cli.jobs import job_argument, json_option
from supervisor.cli.remote import Far, job_of_anyone
from supervisor.cli.text import fitted
from supervisor.journal.records import EventRecord
from supervisor.views.plain import printable, short
from supervisor.views.times import instant, iso

# Fields for the machine alone: identity, and what another field says better.
_UNSAID = frozenset(
    {"start_ticks", "boot_id", "at_s", "written_at_s", "evidence", "counted", "detail"}
)
_USUAL = {"tier": "disk"}  # not worth a place
KIND_WIDTH = 18  # the longest name of an event


@click.command("events")
@job_argument
@json_option
@click.pass_obj
def command(state_dir: Path, job: str | None, *, as_json: bool) -> None:
    """Print every event that the journal has of a job, oldest first.

    With --json, one JSON object a line: seq, at, kind, fields.
    """
    with job_of_anyone(state_dir, job) as chosen:
        journal = chosen.journal
        told = chosen.source.told() if isinstance(chosen, Far) else journal.events(chosen.record.id)
        for one in told:
            click.echo(_json_line(one) if as_json else _line(one, chosen.record.folder))


def _json_line(one: EventRecord) -> str:
    fields = {"seq": one.seq, "at": iso(one.at_s), "kind": one.kind, "fields": _fields(one)}
    return json.dumps(fields, ensure_ascii=False)


def _line(one: EventRecord, folder: str) -> str:
    fields = "  ".join(_said(_fields(one), folder))
    head = f"{instant(one.at_s)}  {one.kind.ljust(KIND_WIDTH)}"
    return fitted(f"{head}  {printable(fields)}".rstrip())


def _fields(one: EventRecord) -> dict[str, Any]:
    """The event's fields; what cannot be read is shown as it is."""
    try:
        fields = json.loads(one.body)
    except ValueError:
        return {"unreadable": one.body}
    return fields if isinstance(fields, dict) else {"unreadable": one.body}


def _said(fields: dict[str, Any], folder: str) -> Iterator[str]:
    """`name=value` of what is worth a place; paths as people read them."""
    for name, value in fields.items():
        empty = value is None or value is False or value in ("", [], {})
        if empty or name in _UNSAID or _USUAL.get(name) == value:
            continue
        if name == "path":
            yield f"path={short(value, folder)}"
        elif isinstance(value, float):
            yield f"{name}={round(value, 3):g}"
        elif isinstance(value, str) and " " not in value:
            yield f"{name}={value}"
        else:
            yield f"{name}={json.dumps(value, ensure_ascii=False)}"
