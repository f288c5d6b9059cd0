"""`supervise show`: one job on one page.

Owns the verb and the page; reads the journal, or of another user's job what the daemon tells.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from supervisor.cli.batch_page import batch_lines, quarantine_lines
from supervisor.cli.fields import print_json
from supervisor.cli.jobs import job_argument, json_option
from supervisor.cli.ps import steps
from supervisor.cli.remote import Far, job_of_anyone
from supervisor.cli.text import Column, Cut, labelled, table, word
from supervisor.core.amounts import size
from supervisor.journal import AttemptRecord, CheckpointRecord, JobRecord
from supervisor.views.batch import Batch, batch_of_job, items_done
from supervisor.views.chosen import Chosen
from supervisor.views.documents import document
from supervisor.views.fields import attempts_of
from supervisor.views.frozen import command_words
from supervisor.views.next_step import next_step, note
from supervisor.views.plain import printable, short
from supervisor.views.times import ago, clock, lasting

SHOWN_CHECKPOINTS = 5

_ATTEMPTS = (
    Column("#", right=True),
    Column("STARTED"),
    Column("RAN", right=True),
    Column("FROM", right=True),
    Column("TO STEP", right=True),
    Column("CAUSE"),
    Column("DECISION"),
)
_BATCH_ATTEMPTS = (*_ATTEMPTS[:3], Column("ITEMS", right=True), *_ATTEMPTS[5:])
_CHECKPOINTS = (
    Column("STEP", right=True),
    Column("SEEN"),
    Column("VERDICT"),
    Column("SIZE", right=True),
    Column("PATH", cut=Cut.HEAD),
)


@click.command("show")
@job_argument
@json_option
@click.pass_obj
def command(state_dir: Path, job: str | None, *, as_json: bool) -> None:
    """Show one job: where it is, its attempts, its last checkpoints."""
    with job_of_anyone(state_dir, job) as chosen:
        if as_json:
            print_json(chosen.document if isinstance(chosen, Far) else document(chosen))
        else:
            click.echo("\n".join(_page(chosen)))


def headline(chosen: Chosen) -> str:
    """`digits-3fa2c1  running`, with a note where nobody looks after it."""
    said = chosen.note if isinstance(chosen, Far) else note(chosen)
    more = f" ({said})" if said else ""
    return f"{click.style(chosen.record.id, bold=True)}  {word(chosen.record.state)}{more}"


def _page(chosen: Chosen) -> Iterator[str]:
    record = chosen.record
    yield headline(chosen)
    if isinstance(chosen, Far):
        yield labelled("user", printable(chosen.user))
    if record.why:
        yield labelled("why", printable(record.why))
    batch = batch_of_job(chosen)
    if batch is None:
        yield labelled("step", steps(record).replace("/", " of "))
    if batch is None or not isinstance(chosen, Far):  # what is called, no document says
        yield labelled("command" if batch is None else "calls", command_words(record))
    yield labelled("folder", printable(record.folder))
    began, latest = clock(record.created_s), ago(record.updated_s)
    yield labelled("began", f"{began}; last change {latest}")
    if batch is not None:
        yield from batch_lines(chosen, batch)
    attempts = attempts_of(chosen.journal, record)
    if attempts:
        yield ""
        yield _attempts_table(attempts, batch)
    if batch is not None:
        yield from quarantine_lines(chosen, batch)
    checkpoints = chosen.journal.checkpoints(record.id)
    if checkpoints:
        yield ""
        yield from _checkpoints(checkpoints, record)
    yield ""
    step = chosen.next_step if isinstance(chosen, Far) else next_step(chosen)
    yield labelled("next", step.words, [f"  {step.command}"] if step.command else [])


def _attempts_table(attempts: Sequence[AttemptRecord], batch: Batch | None) -> str:
    if batch is None:
        return table(_ATTEMPTS, [_attempt(one) for one in attempts])
    rows = []
    for one in attempts:
        number, started, ran, _, _, cause, decision = _attempt(one)
        done = items_done(one)
        rows.append((number, started, ran, "-" if done is None else str(done), cause, decision))
    return table(_BATCH_ATTEMPTS, rows)


def _attempt(one: AttemptRecord) -> tuple[str, ...]:
    return (
        str(one.number),
        clock(one.spawned_s),
        lasting(one.ran_s),
        "start" if one.resumed_step is None else str(one.resumed_step),
        "-" if one.step is None else str(one.step),
        "-" if one.cause is None else word(one.cause),
        "-" if one.decision is None else word(one.decision),
    )


def _checkpoints(found: Sequence[CheckpointRecord], record: JobRecord) -> Iterator[str]:
    rows = [_checkpoint(one, record) for one in found[-SHOWN_CHECKPOINTS:]]
    yield table(_CHECKPOINTS, rows)
    if len(found) > SHOWN_CHECKPOINTS:
        yield click.style(f"and {len(found) - SHOWN_CHECKPOINTS} earlier", dim=True)


def _checkpoint(one: CheckpointRecord, record: JobRecord) -> tuple[str, ...]:
    return (
        "-" if one.step is None else str(one.step),
        clock(one.at_s),
        verdict_words(one),
        "-" if one.size_bytes is None else size(one.size_bytes),
        short(one.path, record.folder),
    )


def verdict_words(one: CheckpointRecord) -> str:
    """What verification said, in two words."""
    if not one.verified:
        return click.style("bad", fg="red") + (", set aside" if one.set_aside_to else "")
    return (one.level or "verified") + (", pinned" if one.pinned else "")
