"""`supervise cancel`: end jobs for good.

Owns the verb.
"""

from pathlib import Path

import click

from supervisor.cli.arguments import jobs_argument
from supervisor.cli.asking import everything, for_each
from supervisor.cli.reach import reached
from supervisor.client.index import Known


@click.command("cancel")
@jobs_argument
@click.option("--all", "every", is_flag=True, help="All jobs of yours that have not ended.")
@click.pass_obj
def command(state_dir: Path, jobs: tuple[str, ...], *, every: bool) -> None:
    """Stop jobs, and end them for good: nothing resumes them. What they wrote stays.

    A running job is asked to stop first, as by `stop`. Without a daemon the command waits for that.
    One that failed, holds or was stopped is cancelled too; one that succeeded is left alone. Exit
    code 2: one of them was refused.
    """
    with reached(state_dir) as reach:
        texts = everything(reach, jobs) if every else jobs or (None,)
        for_each(reach, texts, lambda daemon, job: daemon.cancel(job).words, _direct)


def _direct(job: Known) -> str:
    from supervisor.cli.direct import cancel  # noqa: PLC0415 - the daemon most often has the job

    return cancel(job)
