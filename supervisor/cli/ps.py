"""`supervise ps`: the jobs of the journal and of the daemon's queue, newest last.

Owns the verb and its table. It is run often and by hand, so it imports only what a listing needs,
and of thousands of jobs it shows those that matter now.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from supervisor.cli.fields import print_json
from supervisor.cli.jobs import json_option, no_jobs, opened
from supervisor.cli.ps_rows import NEEDED, Asked, Listing, Row, listed, users
from supervisor.cli.text import Column, Cut, fitted, table, word
from supervisor.core.causes import State
from supervisor.journal import JobRecord
from supervisor.views.frozen import again, verb
from supervisor.views.plain import counted, printable
from supervisor.views.times import ago

TOLD = 5
EVERY_S = 1.0
LOST = click.style("!", fg="red")

_HEADS = {
    "job": Column("JOB"),
    "user": Column("USER"),
    "state": Column("STATE"),
    "attempt": Column("#", right=True),
    "step": Column("STEP", right=True),
    "cause": Column("LAST CAUSE"),
    "changed": Column("CHANGED"),
    "priority": Column("PRIORITY", right=True),
    "waits": Column("WAITS FOR", cut=Cut.TAIL),
    "folder": Column("FOLDER", cut=Cut.HEAD),
}


@click.command("ps")
@click.option(
    "-a", "--all", "every", is_flag=True, help="Every job, also where there are thousands."
)
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([str(one) for one in State]),
    help="Jobs in this state alone; may be given more than once.",
)
@click.option("--user", metavar="NAME|UID", help="Jobs of this user alone.")
@click.option("--group", metavar="NAME", help="Jobs of this group alone.")
@click.option("--watch", is_flag=True, help="Go on showing them until q or Ctrl-C.")
@json_option
@click.pass_obj
def command(state_dir: Path, /, *, watch: bool, as_json: bool, **given: Any) -> None:  # noqa: ANN401 - the options
    """List jobs, newest last, and say what those that wait are waiting for.

    Of thousands, those that run and the newest are shown; --all shows them all.
    """
    asked = Asked(**given | {"every": given["every"] or as_json})
    if watch:
        _watch(state_dir, asked, as_json=as_json)
        return
    found = listed(state_dir, asked)
    if as_json:
        print_json([one.document for one in found.rows])
    elif not found.rows:
        click.echo(_nothing(state_dir, asked))
    else:
        click.echo(_table(found.rows))
        _tell_of_lost(found.rows)
    for line in _notes(found, state_dir):
        click.echo(f"\n{line}", err=as_json)


def _watch(state_dir: Path, asked: Asked, *, as_json: bool) -> None:
    from supervisor.cli.screen import has_screen, show  # noqa: PLC0415 - of a view alone

    if as_json:
        raise click.UsageError("--watch and --json do not go together")
    if not has_screen():
        raise click.UsageError("--watch needs a terminal")

    def lines(_room: int) -> list[str]:
        found = listed(state_dir, asked)
        # What matters first, for the screen may have no room for all.
        rows = sorted(found.rows, key=lambda one: (not _is_needed(one), -one.created_s))
        told = _table(rows).splitlines() if rows else [_nothing(state_dir, asked)]
        return [*told, *(fitted(one) for one in _notes(found, state_dir))]

    show(lines, EVERY_S)


def _is_needed(row: Row) -> bool:
    return row.document["state"] in NEEDED


def _nothing(state_dir: Path, asked: Asked) -> str:
    if asked.states or asked.user is not None or asked.group is not None:
        return "no such jobs"
    return no_jobs(state_dir)


def _table(rows: Sequence[Row]) -> str:
    wanted = set(_HEADS) - {"user", "priority", "waits"}
    wanted |= {"user"} if len(users(rows)) > 1 else set()
    wanted |= {"priority"} if any(one.document.get("priority") for one in rows) else set()
    wanted |= {"waits"} if any(_waits(one.document) != "-" for one in rows) else set()
    heads = [name for name in _HEADS if name in wanted]
    cells = [_cells(one) for one in rows]
    return table([_HEADS[name] for name in heads], [[one[name] for name in heads] for one in cells])


def _cells(row: Row) -> dict[str, str]:
    one = row.document
    number, cause = one.get("attempt"), one.get("last_cause")
    return {
        "job": one["id"],
        "user": printable(str(one.get("user") or "-")),
        "state": word(str(one["state"])) + (f" {LOST}" if row.lost else ""),
        "attempt": "-" if number is None else str(number),
        "step": _steps(one.get("step"), one.get("total")),
        "cause": cause or "-",
        "changed": ago(row.updated_s),
        "priority": str(one.get("priority") or "-"),
        "waits": _waits(one),
        "folder": printable(str(one.get("folder") or "-")),
    }


def _waits(one: dict[str, Any]) -> str:
    """Its place in the queue and what it waits for: `#3: 2 GPUs`; `-` where it waits for none."""
    why, position = one.get("waits"), one.get("position")
    place = "" if position is None else f"#{position}"
    return ": ".join(filter(None, (place, printable(str(why or ""))))) or "-"


def steps(record: JobRecord) -> str:
    """`1200/2700`, `1200`, or `-` where no step is known."""
    return _steps(record.step, record.total)


def _steps(step: int | None, total: int | None) -> str:
    if step is None:
        return "-"
    return f"{step}/{total}" if total else str(step)


def _tell_of_lost(rows: Sequence[Row]) -> None:
    """The note below the table; where there are many, of the newest alone."""
    lost = [(one.document["id"], one.place) for one in rows if one.lost and one.place is not None]
    for job_id, place in lost[-TOLD:]:
        with opened(place) as journal:
            record = None if journal is None else journal.job(job_id)
        if record is not None:
            words = f"{record.id}: its runner is gone; run the same command to resume"
            click.echo(f"\n{LOST} {words}:\n    {again(record, place, here=Path.cwd())}")


def _notes(found: Listing, state_dir: Path) -> Iterator[str]:
    if found.left_out.total():
        states = ", ".join(f"{count} {state}" for state, count in sorted(found.left_out.items()))
        every = verb(state_dir, "ps", "--all")
        yield f"and {counted(found.left_out.total(), 'other job')} ({states}): {every}"
    if found.unserved:
        run = verb(state_dir, "daemon", "run")
        yield f"no daemon is running, so nobody starts the jobs that wait: {run}"
    if found.trouble:
        yield f"what waits in the queue is not known: {printable(found.trouble)}"
