"""The view of a run on a terminal: events scroll by, one line at the bottom stays.

Owns that line: bar, step, rate, time left, loss, attempt and the last decision. Drawn at most once
a second, because watching must cost the training nothing.
"""

import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.text import Text

from supervisor.core.causes import State
from supervisor.core.events import (
    AttemptEnded,
    CheckpointChosen,
    CheckpointVerified,
    DeadlinePassed,
    Event,
    HoldRequired,
)
from supervisor.core.state import JobState
from supervisor.runner.listener import Snapshot
from supervisor.runner.words import at_step, seconds, sentence
from supervisor.watch.progress import Progress

DRAW_EVERY_S = 1.0
BAR_WIDTH, LEAST_BAR_WIDTH = 28, 8
BAR_PLACE = 1  # behind the name
GAP = "  "
ECHO_WIDTH = 3  # of a terminal's `^C`, and the column behind it
BAR, ASCII_BAR = ("━", "╸", "━"), ("=", "-", " ")  # done, half done, not done

_LIVELY = {State.RUNNING, State.STOPPING}  # in other states, rate and time left are history

_STYLES: dict[type[Event], str] = {
    CheckpointVerified: "dim",
    DeadlinePassed: "yellow",
    HoldRequired: "bold yellow",
}


class LiveView:
    """A listener with a line of its own. A context manager: the terminal is restored at its end."""

    def __init__(self, name: str, console: Console | None = None) -> None:
        self._name = name
        self._console = console or Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._state = JobState()
        self._snapshot = Snapshot(0, Progress())
        self._last_decision = ""
        self._drawn_at = 0.0

    def __enter__(self) -> Self:
        self._live.start()
        self._console.show_cursor()  # it would stay hidden after a SIGKILL, and after Ctrl-Z
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):  # the terminal is gone (a connection broke); the run's end counts
            self._live.stop()

    def saw(self, event: Event, state: JobState) -> None:
        """Let the event scroll by, and draw the line anew."""
        self._state = state
        if isinstance(event, AttemptEnded):
            self._last_decision = f"{event.cause} → {event.action}"
        if isinstance(event, CheckpointChosen):
            self._snapshot = Snapshot(state.attempt, Progress(step=event.step))
        words = sentence(event, state)
        if words:
            self._scroll(words, self._style(event, state))
        if event.durable:
            self._draw()

    def progressed(self, snapshot: Snapshot) -> None:
        """Keep it, and draw when the last drawing is old enough."""
        self._snapshot = snapshot
        if time.monotonic() - self._drawn_at >= DRAW_EVERY_S:
            self._draw()

    def warned(self, text: str) -> None:
        """Let the warning scroll by."""
        self._scroll(f"warning: {text}", "yellow")

    def _style(self, event: Event, state: JobState) -> str:
        if isinstance(event, AttemptEnded):
            return "bold green" if state.phase is State.SUCCEEDED else "bold red"
        return _STYLES.get(type(event), "")

    def _scroll(self, words: str, style: str) -> None:
        at = time.strftime("%H:%M:%S")
        for line in words.splitlines():
            self._console.print(Text.assemble((at, "dim"), " ", (line, style)))

    def _draw(self) -> None:
        self._drawn_at = time.monotonic()
        self._live.update(self._line(), refresh=True)

    def _line(self) -> Text:
        """One line of text: a rich table in its place costs four times as much to draw.

        What does not fit is left out, the least important first; the bar takes the room that is
        left. The line never fills the terminal: a Ctrl-C is echoed behind it, and must not wrap.
        """
        room = self._console.width - ECHO_WIDTH
        cells: dict[int, Text] = {}
        for _, place, text, style in sorted(self._cells()):
            if text and (cell_len(text) <= room or not cells):
                cells[place] = Text(text, style)
                room -= cell_len(text) + len(GAP)
        fraction = self._snapshot.progress.fraction if self._state.phase in _LIVELY else None
        if fraction is not None and room >= LEAST_BAR_WIDTH:
            cells[BAR_PLACE] = self._bar(fraction, min(room, BAR_WIDTH))
        line = Text(GAP).join([cells[place] for place in sorted(cells)])
        line.truncate(max(1, self._console.width - ECHO_WIDTH), overflow="ellipsis")
        line.no_wrap = True
        return line

    def _cells(self) -> list[tuple[int, int, str, str]]:
        """What may stand on the line: (importance, 0 first; place from the left; text; style)."""
        snapshot, progress = self._snapshot, self._snapshot.progress
        lively = self._state.phase in _LIVELY
        step = "" if progress.step is None else str(progress.step)
        rate = f"{snapshot.rate:.1f}/s" if lively and snapshot.rate else ""
        left = lively and snapshot.eta_s is not None
        eta = f"{seconds(snapshot.eta_s or 0.0)} left" if left else ""
        loss = "" if progress.loss is None else f"loss {progress.loss:.4g}"
        if step and progress.total:
            step += f"/{progress.total}"
        return [
            (0, 0, self._name, "bold"),
            (2, 2, step, "cyan"),
            (5, 3, rate, ""),
            (3, 4, eta, ""),
            (4, 5, loss, "magenta"),
            (1, 6, self._standing(), "dim"),
            (6, 7, self._last_decision, "dim"),
        ]

    def _bar(self, fraction: float, width: int) -> Text:
        full, half, rest = ASCII_BAR if self._console.options.ascii_only else BAR
        if self._console.no_color or self._console.color_system is None:
            rest = " "  # only its colour would tell it from what is done
        wholes, halves = divmod(int(2 * width * fraction), 2)
        done = full * wholes + half * halves
        style = "green" if wholes == width else "bar.complete"
        return Text.assemble((done, style), (rest * (width - len(done)), "bar.back"))

    def _standing(self) -> str:
        state = self._state
        attempt = f"attempt {state.attempt}" if state.attempt else ""
        where = ""
        if state.phase is not State.RUNNING:
            where = state.phase.replace("_", " ")
        elif state.resumed_step is not None:
            where = f"from {at_step(state.resumed_step)}"
        return " · ".join(filter(None, (attempt, where)))
