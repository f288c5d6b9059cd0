"""`supervise daemon install`: the daemon as a service of this host, or of one user.

Owns the words around it. What is done, and refused, is `supervisor.daemon.install`'s.
"""

from collections.abc import Iterator
from pathlib import Path

import click

from supervisor.daemon.install import Wishes, install
from supervisor.daemon.units import Layout, Program, Refused

PREFIX = click.option(
    "--prefix",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Work on files below DIR instead of those of this host, and run nothing.",
)
USER = click.option("--user", is_flag=True, help="Yours alone (systemctl --user); needs no root.")


def layout(state_dir: Path, *, user: bool, prefix: Path | None) -> Layout:
    """Where the files of the wanted installation are."""
    base = prefix.absolute() if prefix else None
    return Layout.of_user(state_dir, base) if user else Layout.of_system(base or Path("/"))


def tell(steps: Iterator[str]) -> None:
    """Print each step when it is done.

    Raises:
        click.ClickException: it was refused; with the reason.
    """
    try:
        for step in steps:
            click.echo(step)
    except Refused as error:
        raise click.ClickException(str(error)) from error


@click.command("install")
@USER
@PREFIX
@click.option("--now", is_flag=True, help="Also start it, now and after every boot.")
@click.option("--force", is_flag=True, help="Replace the units of another installation.")
@click.pass_obj
def command(state_dir: Path, user: bool, prefix: Path | None, now: bool, force: bool) -> None:  # noqa: FBT001 - click passes by name
    """Make the daemon a service: of this host, or with --user of yours alone.

    Writes the unit files, makes the groups, and says what to type next. Doing it again does no
    harm; after an upgrade it is how the units follow.
    """
    wishes = Wishes(now=now, force=force, dry=prefix is not None)
    try:
        program = Program.this()
    except Refused as error:
        raise click.ClickException(str(error)) from error
    tell(install(layout(state_dir, user=user, prefix=prefix), program, wishes))
