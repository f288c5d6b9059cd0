"""What this process has said to its runner and heard from it: one presence for each process.

Owns the line of this process, whether it was asked to stop, what is called then, and what the end
of the process says. Never looks at the environment before the first call: the module may have been
imported in a zygote, before there was a job. Invariant: a forked child begins with a presence of
its own, which holds nothing of its parent's open and says nothing in its name.
"""

from __future__ import annotations

import atexit
import itertools
import json
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from workers.connection import Ears, Line
from workers.packets import number_of
from workers.protocol import ENV_SESSION
from workers.reports import Errored, Listens, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, TracebackType

    Excepthook = Callable[[type[BaseException], BaseException, "TracebackType | None"], Any]

LEAVING_S = 0.2  # what a last word, and the end of the process, may wait for the runner
DETAIL_CHARACTERS = 4000


class Board(NamedTuple):
    """Where a presence reads and writes what a step of the script looks at."""

    latest: Callable[[], tuple[Any, Any, dict[str, Any]] | None]
    lost: Callable[[], None]
    show: Callable[..., None]  # stop=True or False


class Presence:
    """This process, seen by its runner. `copied`: its parent was seen, too, and is whom it asks."""

    def __init__(self, board: Board, *, copied: bool = False) -> None:
        self.line: Line | None = None
        self.callbacks: list[Callable[[], object]] = []
        self.phases = itertools.count(1)
        self._board = board
        self._copied = copied
        self._opened = False
        self._glanced = False
        self._looks = False  # whether to stop, or waits to be called
        self._lock = threading.RLock()
        self._asked = False
        self._terminable = False  # SIGTERM is ours
        self._done: set[str] = set()

    def speak(self) -> Line | None:
        """Return the line, which the first call opens; None where there is no runner."""
        if not self._opened:
            with self._lock:
                if not self._opened:
                    self._opened = True
                    self._open()
        return self.line

    def look(self) -> None:
        """Listen; in a copy, which nobody asks to stop, only once it has a line of its own."""
        self._glanced = True
        if self._opened or not self._copied:
            self.listen()

    def listen(self) -> None:
        """Say, once, that this process looks whether it shall stop; a SIGTERM asks it then."""
        line = self.speak()
        if self._looks:
            return
        self._looks = True
        # In this order nothing is lost when the runner asks meanwhile, in the thread.
        self._board.show(stop=False)
        if self._asked:
            self._board.show(stop=True)
        if line is None:
            return
        # torchrun tells its ranks by SIGTERM that another has died: that must end them, and who is
        # to stop is told on the line.
        main = threading.current_thread() is threading.main_thread() and not is_rank_of_torchrun()
        if main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            self._terminable = True
            signal.signal(signal.SIGTERM, _terminated)
        line.send(Listens())  # last: from now on it may be asked

    def call_back(self) -> None:
        """Call what waits for the stop, in order, once."""
        if not self._first("callbacks"):
            return
        for callback in self.callbacks:
            try:
                callback()
            except (Exception, SystemExit) as raised:  # noqa: BLE001 - the others are called as well
                from workers import faults  # noqa: PLC0415 - seldom needed

                faults.log("a function of session.on_stop raised:", faults.describe(raised))

    def last_word(self, word: str, step: Any) -> None:  # noqa: ANN401 - whatever is a step
        """Say how it leaves, once, with the last step that is known."""
        line = self.speak()
        if line is not None and self._first("outcome"):
            known = self._step() if step is None else number_of(step)
            line.send(Outcome(word, known), LEAVING_S)

    def fail(self, error: BaseException, details: dict[str, object]) -> None:
        """Say what it dies of, once."""
        line = self.speak()
        if line is None or not self._first("error"):
            return
        from workers import cuda, faults  # noqa: PLC0415 - seldom needed

        failure = faults.describe(error)
        facts = {name: _plain(value) for name, value in details.items()}
        if figures := cuda.memory_figures():
            facts["cuda_memory"] = figures
            facts["cuda_summary"] = cuda.memory_summary()[:DETAIL_CHARACTERS]
        line.send(Errored(*failure[:4], step=self._step(), details=facts), LEAVING_S)

    def crash(self, error: BaseException) -> None:
        """Say what nobody has caught; a Ctrl-C is somebody's wish and no error."""
        if self.line is not None:
            self._first("crash")
            if not isinstance(error, KeyboardInterrupt):
                self.fail(error, {})

    def leave(self) -> None:
        """At the end of the process: what was not called yet is called, and the rest is sent."""
        if self.line is None:
            return
        if self._asked and not self._done & {"crash", "outcome"}:
            self.call_back()
        self.line.close(LEAVING_S)

    def terminate(self, number: int) -> None:
        """Take a SIGTERM as being asked; die of it where there is no runner that will ask."""
        if self.line is not None and self.line.alive:
            self._ask()
            return
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def copy(self) -> Presence:
        """Return the presence of a forked child, in it."""
        if self.line is not None:
            self.line.forget()
        if self._terminable and signal.getsignal(signal.SIGTERM) is _terminated:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return Presence(self._board, copied=self._copied or self.line is not None)

    def _open(self) -> None:
        path = os.environ.get(ENV_SESSION)
        if not path:
            return
        self.line = Line.open(path, Ears(self._board.latest, self._ask, self._board.lost))
        if self.line is not None:
            _hook()
            if self._glanced:
                self.listen()

    def _ask(self) -> None:
        self._asked = True
        if self._looks:
            self._board.show(stop=True)

    def _first(self, what: str) -> bool:
        first = what not in self._done
        self._done.add(what)
        return first

    def _step(self) -> int | None:
        latest = self._board.latest()
        return None if latest is None else number_of(latest[0])


def is_rank_of_torchrun() -> bool:
    """Tell whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


_current: Presence | None = None
_hooked = False


def become(presence: Presence) -> Presence:
    """Make this the presence of the process."""
    global _current  # noqa: PLW0603 - the process has one
    _current = presence
    return presence


def _hook() -> None:
    """Have the end of the process seen; once for it and all that are forked from it."""
    global _hooked  # noqa: PLW0603 - as above
    if _hooked:
        return
    _hooked = True
    atexit.register(_leave)
    sys.excepthook = _reporting(sys.excepthook)


def _reporting(told: Excepthook) -> Excepthook:
    def excepthook(
        kind: type[BaseException], value: BaseException, trace: TracebackType | None
    ) -> None:
        if _current is not None:
            _current.crash(value)
        told(kind, value, trace)

    return excepthook


def _leave() -> None:
    if _current is not None:
        _current.leave()


def _terminated(number: int, _: FrameType | None) -> None:
    if _current is not None:
        _current.terminate(number)


def _plain(value: object) -> object:
    """Return a detail as JSON can hold it: itself, or what it looks like."""
    try:
        if len(json.dumps(value)) <= DETAIL_CHARACTERS:
            return value
        text = value if isinstance(value, str) else repr(value)
    except (TypeError, ValueError, RecursionError):
        text = _shown(value)
    return text[:DETAIL_CHARACTERS]


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - whatever a user's type does
        return f"of type {type(value).__name__}, which cannot be shown"
