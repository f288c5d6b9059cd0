"""One wish for several jobs: told line by line, each on its own.

Owns the loop over JOBs and what `--all` means. Invariant: a job that is refused does not keep the
others from being reached, and the exit code remembers it.
"""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from supervisor.cli.reach import Reach
from supervisor.client.errors import Refused
from supervisor.client.index import Known, known_jobs
from supervisor.runner.exits import Exit

if TYPE_CHECKING:
    from supervisor.client.calls import Daemon

_ENDED = frozenset({"succeeded", "failed", "cancelled", "stopped"})


def for_each(
    reach: Reach,
    texts: Sequence[str | None],
    through: "Callable[[Daemon, str], str]",
    direct: Callable[[Known], str],
) -> None:
    """Do it to each job, tell one line of each, and leave with 2 if one of them was refused."""
    refused = False
    for text in texts:
        try:
            click.echo(reach.act(text, through, direct))
        except (Refused, click.ClickException) as error:
            refused = True
            tell_refusal(error)
    if refused:
        raise click.exceptions.Exit(Exit.USAGE)


def tell_refusal(error: Refused | click.ClickException) -> None:
    """Say on stderr what was not done, and why."""
    words = error.format_message() if isinstance(error, click.ClickException) else str(error)
    click.echo(f"supervise: {words}", err=True)


def everything(reach: Reach, named: Sequence[str] = ()) -> list[str]:
    """The ids of this user's jobs that have not ended; those that wait for their turn come first.

    In that order, none of them begins to run because another one makes room. Where there is none,
    that is said.

    Raises:
        click.UsageError: jobs are `named` as well, or theirs are on another host.
    """
    if named:
        raise click.UsageError(f"either --all, or the jobs that are meant ({named[0]})")
    if reach.found is not None and reach.found.far:
        raise click.UsageError("--all means your jobs on this host; name those on another")
    served = [] if reach.daemon is None else reach.daemon.jobs(user=str(os.getuid()))
    going = [one for one in served if one.get("phase") != "ended"]
    queue = [str(one["id"]) for one in sorted(going, key=lambda one: one["phase"] != "waiting")]
    known = {str(one["id"]) for one in served}
    others = [one for one in known_jobs(reach.places) if one.id not in known]
    found = queue + [one.id for one in others if one.state not in _ENDED]
    if not found:
        click.echo("no job of yours runs or waits")
    return found
