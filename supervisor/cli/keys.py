"""Single keys from the terminal, for a view that is drawn over and over.

Owns the terminal's mode while a view is shown. Prints nothing. Invariant: the mode is as it was
before, however the view ends, and while it is suspended.
"""

import math
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

SUSPEND = b"\x1a"
LEAVE = frozenset({b"q", b"Q", b"\x03", b"\x04", b"\x1b"})
GONE = b"q"  # a terminal that is gone asks us to leave
ESCAPE = b"\x1b"


class Keys:
    """Keys as they are typed, unseen. Where stdin is no terminal, none ever comes."""

    def __init__(self) -> None:
        self._fd = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._before: Any = None  # termios' own list

    def __enter__(self) -> Self:
        if self._fd is not None:
            self._before = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd, termios.TCSANOW)
            mode = termios.tcgetattr(self._fd)
            # Ctrl-Z arrives as a key: the screen has to be put back before the shell gets it.
            mode[6][termios.VSUSP] = b"\0"
            termios.tcsetattr(self._fd, termios.TCSANOW, mode)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._fd is not None:
            # What was typed meanwhile was for the view, not for the shell.
            with suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(self._fd, termios.TCSAFLUSH, self._before)

    def wait(self, timeout_s: float) -> bytes | None:
        """The next key, or None when none came in time."""
        if self._fd is None:
            time.sleep(timeout_s)
            return None
        ready, _, _ = select.select([self._fd], [], [], timeout_s)
        if not ready:
            return None
        try:
            typed = os.read(self._fd, 64)
        except OSError:
            return GONE
        # An escape sequence (an arrow) is one key; of others that came together, the last counts.
        return (typed if typed.startswith(ESCAPE) else typed[-1:]) or GONE


def until_left(draw: Callable[[], None], keys: Keys, every_s: float) -> bytes:
    """Draw again and again until a key asks for something else; that key."""
    due_s = -math.inf
    while True:
        now_s = time.monotonic()
        if now_s >= due_s:
            draw()
            due_s = now_s + every_s
        key = keys.wait(max(0.0, due_s - time.monotonic()))
        if key is not None and (key in LEAVE or key == SUSPEND):
            return key
