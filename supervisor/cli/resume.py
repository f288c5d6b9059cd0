"""`supervise resume`: let jobs wait for their turn again, or a held group go on.

Owns the verb. Only the daemon has a queue: a job that `supervise run` started is resumed by
running it.
"""

from pathlib import Path

import click

from supervisor.cli.arguments import jobs_argument
from supervisor.cli.asking import for_each
from supervisor.cli.naming import NoSuchJob
from supervisor.cli.reach import reached
from supervisor.client.find import find_daemon
from supervisor.client.index import Known


@click.command("resume")
@jobs_argument
@click.option("--group", "groups", metavar="NAME", multiple=True, help="Let a held group go on.")
@click.pass_obj
def command(state_dir: Path, jobs: tuple[str, ...], groups: tuple[str, ...]) -> None:
    """Put jobs that stopped, failed or hold into the queue again.

    They go on from their newest checkpoint that verifies. A job that waits or runs is left alone.
    With --group, the jobs of a group that was held after failures may start again.

    Exit code 2: one of them was refused.
    """
    with reached(state_dir) as reach:
        if reach.daemon is None and (groups or not jobs):
            find_daemon(state_dir)  # it raises, with what to do
        for name in groups:
            assert reach.daemon is not None  # noqa: S101 - seen to just above
            click.echo(reach.daemon.release_group(name)["words"])
        texts: tuple[str | None, ...] = jobs or (() if groups else (None,))
        for_each(reach, texts, lambda daemon, job: daemon.resume(job).words, _direct)


def _direct(job: Known) -> str:
    from supervisor.cli.direct import already, is_running  # noqa: PLC0415 - the daemon has most
    from supervisor.views.frozen import verb  # noqa: PLC0415 - the same

    if job.state in {"succeeded", "cancelled"}:
        return already(job.id, job.state)
    if is_running(job):
        return f"{job.id} is running already"
    raise NoSuchJob(
        f"{job.id} is in no queue: no daemon has it. To go on with it in the foreground: "
        f"{verb(job.place, 'retry', job.id)}"
    )
