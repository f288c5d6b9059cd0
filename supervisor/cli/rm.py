"""`supervise rm`: delete ended jobs with their logs and copies.

Owns the verb, and what retention by age and size means to a person. What the job's own script wrote
is never touched.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import click

from supervisor.cli.arguments import jobs_argument
from supervisor.cli.asking import for_each
from supervisor.cli.reach import Reach, reached
from supervisor.client.index import Known


@click.command("rm")
@jobs_argument
@click.option("--older", metavar="DURATION", help="Ended jobs not heard of for so long: 30d.")
@click.option("--keep-size", metavar="SIZE", help="The oldest, until all have no more: 50GiB.")
@click.option("--dry-run", is_flag=True, help="Only tell which jobs would be removed.")
@click.pass_obj
def command(
    state_dir: Path,
    jobs: tuple[str, ...],
    *,
    older: str | None,
    keep_size: str | None,
    dry_run: bool,
) -> None:
    """Remove ended jobs: their history, logs, and our copies of their checkpoints.

    What the job itself wrote stays where it is. Name the jobs, or have the oldest chosen by
    --older and --keep-size. Exit code 2: one of them was refused.
    """
    chosen = older is not None or keep_size is not None
    if chosen == bool(jobs):
        raise click.UsageError("say which: either JOB..., or --older and --keep-size")
    with reached(state_dir) as reach:
        texts = list(_old(reach, older, keep_size)) if chosen else list(jobs)
        if dry_run:
            for text in texts:
                _would(reach.own(text))
            return
        for_each(reach, texts, lambda daemon, job: daemon.remove(job).words, _direct)
    if chosen and not texts:
        click.echo("no ended job is older or too much")


def _old(reach: Reach, older: str | None, keep_size: str | None) -> Iterator[str]:
    """The ids that retention chooses, of every place that holds jobs of this person."""
    import time  # noqa: PLC0415 - for these options alone

    from supervisor.journal import Journal  # noqa: PLC0415 - the same
    from supervisor.runner.remove import old  # noqa: PLC0415 - the same

    older_s, keep_bytes = _bounds(older, keep_size)
    for place in reach.places:
        journal = Journal.open_existing(place)
        if journal is not None:
            with closing(journal):
                yield from old(journal, older_s, keep_bytes, time.time())


def _bounds(older: str | None, keep_size: str | None) -> tuple[float | None, int | None]:
    from supervisor.spec.problems import BadValue  # noqa: PLC0415 - for these options alone
    from supervisor.spec.units import read_duration, read_size  # noqa: PLC0415 - the same

    try:
        return (
            None if older is None else read_duration(older),
            None if keep_size is None else read_size(keep_size),
        )
    except BadValue as error:
        raise click.UsageError(f"{error}: {error.hint}") from error


def _would(job: Known) -> None:
    from supervisor.runner.home import JobFolder  # noqa: PLC0415 - for this option alone
    from supervisor.runner.remove import size_bytes  # noqa: PLC0415 - the same

    size = size_bytes(JobFolder.of(job.place, job.id).path)
    click.echo(f"{job.id} would be removed: {job.state}, {size / 1e6:.1f} MB")


def _direct(job: Known) -> str:
    from supervisor.cli.direct import remove  # noqa: PLC0415 - the daemon most often has the job

    return remove(job)
