"""A view that fills the terminal and is drawn over and over.

Owns the screen that it borrows. Knows nothing of what is drawn. Invariant: the terminal is as it
was before, however the view ends, and while it is suspended.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

import click

from supervisor.cli.keys import SUSPEND, Keys, until_left

FOOTER = "q leaves"

Draw = Callable[[int], Sequence[str]]  # lines for a terminal of this width


def has_screen() -> bool:
    """Whether there is a terminal that a view can be drawn on."""
    return sys.stdout.isatty() and os.environ.get("TERM") not in {None, "", "dumb"}


def show(draw: Draw, every_s: float) -> None:
    """Show the view until a key, Ctrl-C or a signal ends it."""
    # Whoever asks us to end gets the terminal back first.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        while _shown(draw, every_s) == SUSPEND:
            os.kill(0, signal.SIGTSTP)  # and when the shell continues us, the screen is made anew


def _shown(draw: Draw, every_s: float) -> bytes:
    """Show the view until a key ends it; that key."""
    from rich.console import Console  # noqa: PLC0415 - a single frame needs none of it
    from rich.live import Live  # noqa: PLC0415 - the same
    from rich.text import Text  # noqa: PLC0415 - the same

    console = Console(highlight=False)

    def update() -> None:
        told = draw(console.width)
        room = max(1, console.height - 1)
        if len(told) > room:
            more = click.style(f"and {len(told) - room + 1} more", dim=True)
            told = [*told[: room - 1], more]
        text = Text.from_ansi("\n".join([*told, click.style(FOOTER, dim=True)]))
        text.no_wrap = True
        live.update(text, refresh=True)

    live = Live(console=console, screen=True, auto_refresh=False)
    with Keys() as keys, live:
        return until_left(update, keys, every_s)
