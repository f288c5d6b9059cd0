"""`supervise top`: all running jobs, drawn over and over.

Owns the verb. Only reads, never signals a job. Invariant: the view goes on while the GPU driver or
the daemon hangs.
"""

import time
from pathlib import Path

import click

from supervisor.cli.fields import print_json
from supervisor.cli.jobs import json_option
from supervisor.cli.screen import has_screen, show
from supervisor.cli.text import columns
from supervisor.cli.top_frame import Frame, Watcher
from supervisor.cli.top_gpus import NOTHING_YET, GpuFeed, GpuView
from supervisor.cli.top_jobs import Asker, DaemonFeed
from supervisor.cli.top_view import fields, lines

EVERY_S = 1.5
WINDOW_S = 0.5  # a single frame counts CPU time for so long


@click.command("top")
@click.option("--once", is_flag=True, help="Print one frame and leave, as in a pipe.")
@json_option
@click.pass_obj
def command(state_dir: Path, *, once: bool, as_json: bool) -> None:
    """Watch all running jobs; q or Ctrl-C leaves.

    Those of this state folder are shown, and where a daemon serves the host, those of all users.
    """
    none = f"no job is running in {state_dir}"
    if as_json:
        print_json(fields(_one(state_dir)))
    elif once or not has_screen():
        click.echo("\n".join(lines(_one(state_dir), columns(), none)))
    else:
        _live(state_dir, none)


def _one(state_dir: Path) -> Frame:
    """A single frame: the driver is waited for, and CPU time is counted over a moment."""
    from supervisor.gpu.probe import look  # noqa: PLC0415 - the live view asks in another way

    watcher = Watcher(state_dir)
    told = Asker(state_dir).ask()
    watcher.frame(NOTHING_YET, told)
    began_s = time.monotonic()
    inventory, readings = look()
    time.sleep(max(0.0, WINDOW_S - (time.monotonic() - began_s)))
    seen = GpuView(inventory, readings, time.monotonic(), inventory.problem or "")
    return watcher.frame(seen, told)


def _live(state_dir: Path, none: str) -> None:
    watcher = Watcher(state_dir)
    with GpuFeed() as gpus, DaemonFeed(Asker(state_dir)) as daemon:
        show(lambda room: lines(watcher.frame(gpus.latest, daemon.latest), room, none), EVERY_S)
