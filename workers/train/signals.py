"""Hears Ctrl-C and SIGTERM while a training runs, so that it stops at a step boundary.

Owns the two signals' handlers for that time. A supervised rank of torchrun leaves SIGTERM alone: it
says that another rank has died, and a stop is told on the session. Never acts inside a handler, but
for the second Ctrl-C. Invariant: afterwards the handlers are those that were there before.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from workers import session
from workers.presence import is_rank_of_torchrun


class Signals:
    """`asked` is true from the first signal on. Outside the main thread nothing is heard."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:  # noqa: PYI034 - `Self` is of Python 3.11
        if threading.current_thread() is threading.main_thread():
            told = is_rank_of_torchrun() and session.supervised()
            for number in (signal.SIGINT,) if told else (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and shells set it
                    self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)
        self._before.clear()

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
