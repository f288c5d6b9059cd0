"""`supervise daemon uninstall`: the service taken away.

Owns the question before anything is lost. Without --purge nothing that a job wrote is touched, and
no running job notices.
"""

from pathlib import Path

import click

from supervisor.cli.daemon.install import PREFIX, USER, layout, tell
from supervisor.daemon.uninstall import purge, uninstall
from supervisor.daemon.units import SLICE, Layout


@click.command("uninstall")
@USER
@PREFIX
@click.option("--purge", "wipe", is_flag=True, help="Also stop all jobs, and delete their state.")
@click.option("--yes", is_flag=True, help="Do not ask before deleting.")
@click.pass_obj
def command(state_dir: Path, user: bool, prefix: Path | None, wipe: bool, yes: bool) -> None:  # noqa: FBT001 - click passes by name
    """Remove the service. Jobs that run go on, and what jobs wrote stays, without --purge."""
    place = layout(state_dir, user=user, prefix=prefix)
    if wipe:
        if not yes:
            click.confirm(_question(place), abort=True)
        tell(purge(place, dry=prefix is not None))
    tell(uninstall(place, dry=prefix is not None))
    if not wipe and place.state_dir.is_dir():
        manager = "systemctl --user" if user else "systemctl"
        click.echo(f"kept {place.state_dir}; jobs that still run: {manager} status {SLICE}")


def _question(place: Layout) -> str:
    whose = "your jobs" if place.user else "all users' jobs"
    return (
        f"Stop {whose}, and delete {place.state_dir} with their journal, logs and copies of "
        "checkpoints? Their own output folders stay"
    )
