"""`supervise retry`: a known job once more, from any folder, with items that were set aside.

Owns the verb and the choice of items. A job that the daemon has waits there for its turn; any other
runs here, as by `supervise run`.
"""

from collections.abc import Sequence
from pathlib import Path

import click

from supervisor.cli.arguments import complete_job
from supervisor.cli.asking import tell_refusal
from supervisor.cli.item_names import items_meant
from supervisor.cli.item_words import counted, named
from supervisor.cli.jobs import chosen_job
from supervisor.cli.reach import Reach, reached, refuse_unserved
from supervisor.cli.run import ANEW, bring_home, refuse
from supervisor.client.errors import Refused
from supervisor.client.index import Known
from supervisor.journal import Journal
from supervisor.runner.exits import Exit
from supervisor.runner.locks import AlreadyRunning
from supervisor.runner.opening import CancelledForGood, open_known, requeue
from supervisor.runner.remove import NotRemoved
from supervisor.views.chosen import Chosen
from supervisor.views.frozen import said
from supervisor.views.item_names import names_from

QUARANTINED = "quarantined"


@click.command("retry")
@click.argument("words", nargs=-1, metavar="[JOB]...", shell_complete=complete_job)
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

    A job that the daemon has waits for its turn there, and there may be several JOBs. Any other
    runs here, in the foreground, and exit codes are those of `run`.

    Without --items, a batch job goes on with the items that are left. With it, the items named are
    tried again too, each with a clean slate.
    """
    jobs: Sequence[str | None] = words[:1] if items else words
    wanted = [*items, *words[1:]] if items else []
    with reached(state_dir) as reach:
        if no_run or reach.daemon is None:
            if len(jobs) > 1:
                raise click.UsageError(f"what is {jobs[1]} meant to be? Items follow --items")
            here = [reach.own(jobs[0] if jobs else None)]
        else:
            here = _requeued(reach, jobs or (None,), wanted)
    if len(here) > 1:
        names = ", ".join(one.id for one in here)
        raise click.UsageError(f"the daemon has none of {names}: run them here one at a time")
    for job in here:
        refuse_unserved(job)
        _here(job, wanted, no_run=no_run, plain=plain)


def _requeued(reach: Reach, jobs: Sequence[str | None], wanted: Sequence[str]) -> list[Known]:
    """Have the daemon try its jobs again; those that it does not have."""
    items = [QUARANTINED] if QUARANTINED in wanted else wanted
    here: list[Known] = []
    refused = False
    for text in jobs:
        try:
            words = reach.act(text, lambda daemon, job: daemon.retry(job, items).words, here.append)
        except (Refused, click.ClickException) as error:
            tell_refusal(error)
            refused = True
        else:
            if words is not None:
                click.echo(words)
    if refused:
        raise click.exceptions.Exit(Exit.USAGE)
    return here


def _here(job: Known, wanted: Sequence[str], *, no_run: bool, plain: bool) -> None:
    """Try again a job that no daemon has: in the foreground."""
    numbers: list[int] = []
    if wanted:
        with chosen_job(job.place, job.id) as chosen:
            numbers = _numbers(chosen, wanted)
            click.echo(_told(chosen, numbers))
    journal = Journal.open(job.place)
    if numbers:
        try:
            requeue(journal, job.place, job.id, numbers)
        except AlreadyRunning as error:
            refuse(f"{error}, and would not hear of it. Stop it first, or wait until it is done")
        except CancelledForGood as error:
            refuse(f"{error}: nothing resumes it. {ANEW}")
        except NotRemoved as error:
            refuse(str(error))
    if not no_run:
        bring_home(open_known(journal, job.place, job.id), job.name, plain=plain)


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
