"""`supervise report`: what each fault cost.

Owns the arithmetic of losses and the table. Pure where it counts: `losses` turns attempts into
rows and knows no journal.

Definitions. *Steps lost* of attempt n: the last step seen in it minus the step that attempt n+1
resumed from (the beginning is step 0), never negative. *Seconds lost* of attempt n: from the moment
when the checkpoint that attempt n+1 resumed from was written (attempt n's start if it began from
nothing, its end if nobody knows when the checkpoint was written), but not before attempt n was
spawned nor before the previous loss was over, until attempt n+1's first sign of progress (its start
where none was seen). Work after that checkpoint, detection,
backoff and start-up are in it; the time during which a job was stopped on request is not. Each
second counts once, so the rows add up. Finished items of a batch job are never lost: there, what is
lost is the time between attempts. *Goodput*: the share of wall time that was not lost.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import click

from supervisor.cli.batch import batch_totals
from supervisor.cli.batch_page import batch_report
from supervisor.cli.fields import Fields, attempts_of, ended_s, job_fields, print_json
from supervisor.cli.frozen import said
from supervisor.cli.jobs import (
    ATTENDED,
    Chosen,
    chosen_job,
    job_argument,
    json_option,
    runner_lives,
)
from supervisor.cli.ps import steps
from supervisor.cli.text import Column, table, word
from supervisor.cli.times import lasting, now
from supervisor.core.causes import Action, Cause
from supervisor.journal import AttemptRecord, JobRecord

_RESTS = frozenset({Action.HOLD, Action.FINISH, Action.GIVE_UP})  # of a batch job, until new items
NO_FAULT = frozenset({Cause.COMPLETED, Cause.STOPPED})


@dataclass(frozen=True, slots=True)
class Row:
    """One attempt and what its end cost. None: not known, or nothing followed it."""

    number: int
    ran_s: float | None
    resumed_step: int | None
    step: int | None
    cause: str | None
    decision: str | None
    steps_lost: int | None
    seconds_lost: float | None


@dataclass(frozen=True, slots=True)
class Totals:
    """All attempts together. `wall_s` leaves out the time when the job was stopped on request.

    `uncertain`: some attempt's steps are not known, so that `steps_lost` is the least it can be.
    """

    attempts: int
    faults: int
    wall_s: float
    steps_lost: int
    seconds_lost: float
    uncertain: bool

    @property
    def goodput(self) -> float | None:
        """Share of the wall time that was not lost, 0 to 1."""
        return None if self.wall_s <= 0 else max(0.0, 1 - self.seconds_lost / self.wall_s)


@dataclass(frozen=True, slots=True)
class _Gap:
    """Attempt n and its successor. `kept`: what n did is done for ever, as items of a batch are."""

    one: AttemptRecord
    after: AttemptRecord
    kept: bool = False

    @property
    def stopped_s(self) -> float:
        """How long the job was stopped on request, or waited for a person, between the two."""
        end = ended_s(self.one)
        rests = self.one.cause == Cause.STOPPED or (self.kept and self.one.decision in _RESTS)
        if not rests or end is None:
            return 0.0
        return max(0.0, self.after.chosen_s - end)

    @property
    def began_s(self) -> float:
        """When what was lost began."""
        started = _started(self.one)
        end = max(started, ended_s(self.one) or self.after.chosen_s)
        if self.kept:
            return end
        if self.after.resumed_step is None:
            return started
        written = self.after.resumed_written_s
        return end if written is None else min(max(started, written), end)

    @property
    def over_s(self) -> float:
        """When the successor had got going."""
        return self.after.progress_s or _started(self.after)

    @property
    def steps(self) -> int | None:
        """Steps done in vain."""
        if self.kept:
            return 0
        if self.one.step is None:
            return None
        return max(0, self.one.step - (self.after.resumed_step or 0))


def losses(attempts: Sequence[AttemptRecord], *, kept: bool = False) -> list[Row]:
    """One row an attempt, in order. See the definitions above; `kept` is of a batch job."""
    rows = []
    counted_until_s = float("-inf")
    for index, one in enumerate(attempts):
        lost: tuple[int | None, float | None] = (None, None)
        if index + 1 < len(attempts):
            gap = _Gap(one, attempts[index + 1], kept)
            began_s = max(gap.began_s, counted_until_s)
            lost = gap.steps, max(0.0, gap.over_s - began_s - gap.stopped_s)
            counted_until_s = max(counted_until_s, gap.over_s)
        rows.append(
            Row(one.number, one.ran_s, one.resumed_step, one.step, one.cause, one.decision, *lost)
        )
    return rows


def totals(attempts: Sequence[AttemptRecord], until_s: float, *, kept: bool = False) -> Totals:
    """All rows together; `until_s` stands for the end of an attempt that is still running."""
    rows = losses(attempts, kept=kept)
    pairs = [_Gap(one, after, kept) for one, after in pairwise(attempts)]
    wall_s = 0.0
    if attempts:
        last = attempts[-1]
        end_s = ended_s(last)
        wall_s = (until_s if end_s is None else end_s) - _started(attempts[0])
    return Totals(
        attempts=len(attempts),
        faults=sum(row.cause is not None and row.cause not in NO_FAULT for row in rows),
        wall_s=max(0.0, wall_s - sum(gap.stopped_s for gap in pairs)),
        steps_lost=sum(row.steps_lost or 0 for row in rows),
        seconds_lost=sum(row.seconds_lost or 0.0 for row in rows),
        uncertain=any(row.steps_lost is None for row in rows[:-1]),
    )


def _started(one: AttemptRecord) -> float:
    return one.chosen_s if one.spawned_s is None else one.spawned_s


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
    rows = [_cells(row) for row in losses(attempts, kept=is_batch)]
    all_ = totals(attempts, _until(record), kept=is_batch)
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


def _until(record: JobRecord) -> float:
    """Up to when a running attempt has run; of one whose runner is gone, its last sign."""
    lives = record.state in ATTENDED and runner_lives(record)
    return now() if lives else record.updated_s


@click.command("report")
@job_argument
@json_option
@click.pass_obj
def command(state_dir: Path, job: str | None, *, as_json: bool) -> None:
    """Tell what each attempt's end cost: steps lost and time lost, and what was left of the time.

    Steps lost: the last step of an attempt minus the one that the next attempt resumed from. Time
    lost: from that checkpoint's writing to the next attempt's first progress.
    """
    with chosen_job(state_dir, job) as chosen:
        if not as_json:
            click.echo(report_text(chosen))
            return
        attempts = attempts_of(chosen.journal, chosen.record)
        is_batch = said(chosen.record).is_batch
        all_ = totals(attempts, _until(chosen.record), kept=is_batch)
        rows: list[Fields] = [asdict(row) for row in losses(attempts, kept=is_batch)]
        together = asdict(all_) | {"goodput": all_.goodput}
        more = {"rows": rows, "totals": together, "batch": batch_totals(chosen, attempts)}
        print_json(job_fields(chosen.record) | more)
