"""`supervise stop`: ask jobs to save and stop; they can be resumed.

Owns the verb. Nobody is waited for: `supervise wait` does that.
"""

from pathlib import Path

import click

from supervisor.cli.arguments import jobs_argument
from supervisor.cli.asking import everything, for_each
from supervisor.cli.reach import reached
from supervisor.client.index import Known


@click.command("stop")
@jobs_argument
@click.option("--all", "every", is_flag=True, help="All jobs of yours that run or wait.")
@click.pass_obj
def command(state_dir: Path, jobs: tuple[str, ...], *, every: bool) -> None:
    """Ask jobs to stop at their next batch boundary, and to save. They can be resumed.

    A job that waits for its turn leaves the queue. A job that has ended is left alone, so the
    command may be given twice. Exit code 2: one of them was refused.
    """
    with reached(state_dir) as reach:
        texts = everything(reach, jobs) if every else jobs or (None,)
        for_each(reach, texts, lambda daemon, job: daemon.stop(job).words, _direct)


def _direct(job: Known) -> str:
    from supervisor.cli.direct import stop  # noqa: PLC0415 - the daemon most often has the job

    return stop(job)
