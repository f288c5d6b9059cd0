"""`supervise ps`: all jobs, newest last.

Owns the verb. It is run often and by hand, so it imports only what a listing needs.
"""

from pathlib import Path

import click

from supervisor.cli.fields import Fields, job_fields, print_json
from supervisor.cli.frozen import again
from supervisor.cli.jobs import json_option, no_jobs, opened, runner_gone
from supervisor.cli.text import Column, Cut, printable, table, word
from supervisor.cli.times import ago
from supervisor.journal import AttemptRecord, JobRecord, Journal

TOLD = 5
LOST = click.style("!", fg="red")

_HEADS = (
    Column("JOB"),
    Column("STATE"),
    Column("#", right=True),
    Column("STEP", right=True),
    Column("LAST CAUSE"),
    Column("CHANGED"),
    Column("FOLDER", cut=Cut.HEAD),
)


@click.command("ps")
@json_option
@click.pass_obj
def command(state_dir: Path, *, as_json: bool) -> None:
    """List all jobs, newest last."""
    with opened(state_dir) as journal:
        jobs = [] if journal is None else journal.jobs()
        if as_json:
            print_json([] if journal is None else [_fields(journal, one) for one in jobs])
        elif journal is None or not jobs:
            click.echo(no_jobs(state_dir))
        else:
            click.echo(table(_HEADS, [_row(journal, one) for one in jobs]))
            _tell_of_lost([one for one in jobs if runner_gone(one)], state_dir)


def _last(attempts: list[AttemptRecord]) -> tuple[int | None, str | None]:
    """Number of the last attempt, and the cause of the last that ended."""
    causes = [one.cause for one in attempts if one.cause is not None]
    return attempts[-1].number if attempts else None, causes[-1] if causes else None


def _fields(journal: Journal, record: JobRecord) -> Fields:
    number, cause = _last(journal.attempts(record.id))
    return job_fields(record) | {"attempt": number, "last_cause": cause}


def _row(journal: Journal, record: JobRecord) -> tuple[str, ...]:
    number, cause = _last(journal.attempts(record.id))
    note = f" {LOST}" if runner_gone(record) else ""
    return (
        record.id,
        word(record.state) + note,
        "-" if number is None else str(number),
        steps(record),
        cause or "-",
        ago(record.updated_s),
        printable(record.folder),
    )


def steps(record: JobRecord) -> str:
    """`1200/2700`, `1200`, or `-` where no step is known."""
    if record.step is None:
        return "-"
    return f"{record.step}/{record.total}" if record.total else str(record.step)


def _tell_of_lost(lost: list[JobRecord], state_dir: Path) -> None:
    """The note below the table; where there are many, of the newest alone."""
    for one in lost[-TOLD:]:
        words = f"{one.id}: its runner is gone; run the same command to resume"
        click.echo(f"\n{LOST} {words}:\n    {again(one, state_dir)}")
