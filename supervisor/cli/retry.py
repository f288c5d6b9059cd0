"""`supervise retry`: a known job once more, from any folder, with items that were set aside.

Owns the verb and the choice of items. The running is that of `supervise run`.
"""

from collections.abc import Sequence
from pathlib import Path

import click

from supervisor.cli.frozen import said
from supervisor.cli.item_names import items_meant, names_from
from supervisor.cli.item_words import counted, named
from supervisor.cli.jobs import Chosen, chosen_job
from supervisor.cli.run import bring_home, refuse
from supervisor.journal import Journal
from supervisor.runner.locks import AlreadyRunning
from supervisor.runner.opening import open_known, requeue

QUARANTINED = "quarantined"


@click.command("retry")
@click.argument("words", nargs=-1, metavar="[JOB]")
@click.option(
    "--items",
    multiple=True,
    metavar="WHICH...",
    help="Items of a batch job that were set aside: 'quarantined' for all, names or numbers.",
)
@click.option("--no-run", is_flag=True, help="Only note the items, for the job's next run.")
@click.option("--plain", is_flag=True, help="Plain lines, also on a terminal.")
@click.pass_obj
def command(
    state_dir: Path, words: tuple[str, ...], items: tuple[str, ...], *, no_run: bool, plain: bool
) -> None:
    """Run a job again that failed, holds or was stopped, as it was accepted.

    Without --items, a batch job goes on with the items that are left. With it, the items named are
    tried again too, each with a clean slate. Exit codes are those of `run`.
    """
    job, *more = words or (None,)
    if more and not items:
        raise click.UsageError(f"what is {more[0]} meant to be? Items follow --items")
    wanted = [*items, *filter(None, more)]
    with chosen_job(state_dir, job) as chosen:
        job_id, name = chosen.record.id, chosen.record.name
        numbers = _numbers(chosen, wanted) if wanted else []
        if wanted:
            click.echo(_told(chosen, numbers))
    journal = Journal.open(state_dir)
    if numbers:
        try:
            requeue(journal, state_dir, job_id, numbers)
        except AlreadyRunning as error:
            refuse(f"{error}, and would not hear of it. Stop it first, or wait until it is done")
    if not no_run:
        bring_home(open_known(journal, state_dir, job_id), name, plain=plain)


def _numbers(chosen: Chosen, wanted: Sequence[str]) -> list[int]:
    """The quarantined items that are meant."""
    spec = said(chosen.record)
    if not spec.is_batch:
        raise click.UsageError(f"{chosen.record.id} has no items: it is no batch job")
    ledger = chosen.journal.ledger(chosen.record.id)
    aside = [one.number for one in ledger.quarantined()]
    if tuple(wanted) == (QUARANTINED,):
        return aside
    meant = items_meant(ledger, spec.cwd, [one for one in wanted if one != QUARANTINED])
    others = [one for one in meant if one not in set(aside)]
    if others:
        told = named(tuple(others), names_from(ledger))
        raise click.UsageError(
            f"not quarantined: {told}. An item that is done never runs again; "
            "one that is left runs by itself"
        )
    return aside if QUARANTINED in wanted else meant


def _told(chosen: Chosen, numbers: Sequence[int]) -> str:
    if not numbers:
        return f"{chosen.record.name}: no item is quarantined"
    names = names_from(chosen.journal.ledger(chosen.record.id))
    what = counted(len(numbers))
    return f"{chosen.record.name}: {what} to be tried again: {named(tuple(numbers), names)}"
