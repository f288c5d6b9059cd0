"""`supervise kill`: end jobs at once; they can be resumed.

Owns the verb. Nobody is waited for: `supervise wait` does that.
"""

from pathlib import Path

import click

from supervisor.cli.arguments import jobs_argument
from supervisor.cli.asking import for_each
from supervisor.cli.reach import reached
from supervisor.client.index import Known


@click.command("kill")
@jobs_argument
@click.pass_obj
def command(state_dir: Path, jobs: tuple[str, ...]) -> None:
    """Kill the workers of jobs, with every process they started. Nothing is asked.

    What was not saved is lost; the job itself can be resumed, from its newest checkpoint that
    verifies. A job that has ended is left alone. Exit code 2: one of them was refused.
    """
    with reached(state_dir) as reach:
        for_each(
            reach, jobs or (None,), lambda daemon, job: daemon.stop(job, kill=True).words, _direct
        )


def _direct(job: Known) -> str:
    from supervisor.cli.direct import kill  # noqa: PLC0415 - the daemon most often has the job

    return kill(job)
