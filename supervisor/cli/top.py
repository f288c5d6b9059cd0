"""`supervise top`: all running jobs of a state folder, drawn over and over.

Owns the verb and the screen that it borrows. Only reads, never signals a job. Invariant: the view
goes on while the GPU driver hangs, and leaves the terminal as it was.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import click

from supervisor.cli.fields import print_json
from supervisor.cli.jobs import json_option
from supervisor.cli.keys import SUSPEND, Keys, until_left
from supervisor.cli.text import columns
from supervisor.cli.top_frame import Frame, Watcher
from supervisor.cli.top_gpus import NOTHING_YET, GpuFeed, GpuView
from supervisor.cli.top_view import fields, lines

EVERY_S = 1.5
WINDOW_S = 0.5  # a single frame counts CPU time for so long
FOOTER = "q leaves"


@click.command("top")
@click.option("--once", is_flag=True, help="Print one frame and leave, as in a pipe.")
@json_option
@click.pass_obj
def command(state_dir: Path, *, once: bool, as_json: bool) -> None:
    """Watch all running jobs; q or Ctrl-C leaves.

    Jobs of this state folder are shown: other users' are not.
    """
    none = f"no job is running in {state_dir}"
    if as_json:
        print_json(fields(_one(state_dir)))
    elif once or not sys.stdout.isatty() or os.environ.get("TERM") in {None, "", "dumb"}:
        click.echo("\n".join(lines(_one(state_dir), columns(), none)))
    else:
        _live(state_dir, none)


def _one(state_dir: Path) -> Frame:
    """A single frame: the driver is waited for, and CPU time is counted over a moment."""
    from supervisor.gpu.probe import look  # noqa: PLC0415 - the live view asks in another way

    watcher = Watcher(state_dir)
    watcher.frame(NOTHING_YET)
    began_s = time.monotonic()
    inventory, readings = look()
    time.sleep(max(0.0, WINDOW_S - (time.monotonic() - began_s)))
    return watcher.frame(GpuView(inventory, readings, time.monotonic(), inventory.problem or ""))


def _live(state_dir: Path, none: str) -> None:
    # Whoever asks us to end gets the terminal back first.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    watcher = Watcher(state_dir)
    with suppress(KeyboardInterrupt), GpuFeed() as feed:
        while _shown(lambda: watcher.frame(feed.latest), none) == SUSPEND:
            os.kill(0, signal.SIGTSTP)  # and when the shell continues us, the screen is made anew


def _shown(look: Callable[[], Frame], none: str) -> bytes:
    """Show the view until a key ends it; that key."""
    from rich.console import Console  # noqa: PLC0415 - a single frame needs none of it
    from rich.live import Live  # noqa: PLC0415 - the same
    from rich.text import Text  # noqa: PLC0415 - the same

    console = Console(highlight=False)

    def draw() -> None:
        told = lines(look(), console.width, none)
        room = max(1, console.height - 1)
        if len(told) > room:
            told = [*told[: room - 1], click.style(f"and {len(told) - room + 1} more", dim=True)]
        text = Text.from_ansi("\n".join([*told, click.style(FOOTER, dim=True)]))
        text.no_wrap = True
        live.update(text, refresh=True)

    live = Live(console=console, screen=True, auto_refresh=False)
    with Keys() as keys, live:
        return until_left(draw, keys, EVERY_S)
