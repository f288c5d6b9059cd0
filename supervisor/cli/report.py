"""`supervise report`: what each fault cost.

Owns the table; the arithmetic is `supervisor.views.losses`'.
"""

from pathlib import Path

import click

from supervisor.cli.batch_page import batch_report
from supervisor.cli.fields import print_json
from supervisor.cli.jobs import job_argument, json_option
from supervisor.cli.ps import steps
from supervisor.cli.remote import Far, job_of_anyone
from supervisor.cli.text import Column, table, word
from supervisor.views.chosen import Chosen
from supervisor.views.documents import report
from supervisor.views.fields import attempts_of
from supervisor.views.frozen import said
from supervisor.views.losses import Row, losses, totals, until_s
from supervisor.views.times import lasting

_HEADS = (
    Column("#", right=True),
    Column("RAN", right=True),
    Column("FROM", right=True),
    Column("TO STEP", right=True),
    Column("CAUSE"),
    Column("DECISION"),
    Column("STEPS LOST", right=True),
    Column("TIME LOST", right=True),
)


def report_text(chosen: Chosen) -> str:
    """The table and the totals. Coloured: print it with `click.echo`."""
    record = chosen.record
    attempts = attempts_of(chosen.journal, record)
    if not attempts:
        return f"{click.style(record.id, bold=True)} {word(record.state)}: no attempt has begun yet"
    is_batch = said(record).is_batch
    if isinstance(chosen, Far):  # until when a running attempt has run, only its host knows
        found, all_ = chosen.costs()
    else:
        found = losses(attempts, kept=is_batch)
        all_ = totals(attempts, until_s(record), kept=is_batch)
    rows = [_cells(row) for row in found]
    goodput = "" if all_.goodput is None else f", goodput {all_.goodput:.1%}"
    least = "at least " if all_.uncertain else ""
    if is_batch:
        head = f"{click.style(record.id, bold=True)}  {word(record.state)}: "
        wall = f"wall time {lasting(all_.wall_s)}, lost {lasting(all_.seconds_lost)}{goodput}"
        tally = f"{_count(all_.attempts, 'attempt')}, {_count(all_.faults, 'fault')}"
        return f"{batch_report(chosen, attempts)}\n\n{head}{tally}\n{wall}"
    reached = "" if record.step is None else f" at step {steps(record).replace('/', ' of ')}"
    lines = (
        f"{click.style(record.id, bold=True)}  {word(record.state)}{reached}: "
        f"{_count(all_.attempts, 'attempt')}, {_count(all_.faults, 'fault')}\n"
        f"wall time {lasting(all_.wall_s)}, lost {lasting(all_.seconds_lost)} and "
        f"{least}{_count(all_.steps_lost, 'step')}{goodput}"
    )
    return f"{table(_HEADS, rows)}\n\n{lines}"


def _cells(row: Row) -> tuple[str, ...]:
    return (
        str(row.number),
        lasting(row.ran_s),
        "start" if row.resumed_step is None else str(row.resumed_step),
        "-" if row.step is None else str(row.step),
        "-" if row.cause is None else word(row.cause),
        "-" if row.decision is None else word(row.decision),
        "-" if row.steps_lost is None else str(row.steps_lost),
        lasting(row.seconds_lost),
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


@click.command("report")
@job_argument
@json_option
@click.pass_obj
def command(state_dir: Path, job: str | None, *, as_json: bool) -> None:
    """Tell what each attempt's end cost: steps lost and time lost, and what was left of the time.

    Steps lost: the last step of an attempt minus the one that the next attempt resumed from. Time
    lost: from that checkpoint's writing to the next attempt's first progress.
    """
    with job_of_anyone(state_dir, job) as chosen:
        if as_json:
            print_json(chosen.read("report") if isinstance(chosen, Far) else report(chosen))
        else:
            click.echo(report_text(chosen))
