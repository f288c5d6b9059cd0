"""`supervise checkpoint`: what a job can resume from.

Owns the group of verbs.
"""

import click

from supervisor.cli.checkpoint_list import list_command
from supervisor.cli.checkpoint_verify import verify_command


@click.group("checkpoint", subcommand_metavar="list|verify [ARGUMENTS]")
def command() -> None:
    """List or verify a job's checkpoints. Changes nothing."""


command.add_command(list_command)
command.add_command(verify_command)
