"""The view of a run on a terminal: events scroll by, one line at the bottom stays.

Owns that line: bar, step, rate, time left, loss, attempt and the last decision. Drawn at most once
a second, because watching must cost the training nothing.
"""

import time
from contextlib import suppress
from types import TracebackType
from typing import Self

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
BAR_WIDTH = 28
BAR, ASCII_BAR = ("━", "╸", "━"), ("=", "-", " ")  # done, half done, not done

_STYLES: dict[type[Event], str] = {
    CheckpointVerified: "dim",
    DeadlinePassed: "yellow",
    HoldRequired: "bold yellow",
}


class LiveView:
    """A listener with a line of its own. A context manager: the terminal is restored at its end."""

    def __init__(self, name: str, console: Console | None = None) -> None:
        self._name = name
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._state = JobState()
        self._snapshot = Snapshot(0, Progress())
        self._last_decision = ""
        self._drawn_at = 0.0

    def __enter__(self) -> Self:
        self._live.start()
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
            self._live.update(self._line())  # drawn below what scrolls by
            self._scroll(words, self._style(event, state))
        elif event.durable:
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
        """One line of text: a rich table in its place costs four times as much to draw."""
        cells = [Text(self._name, style="bold"), *self._cells()]
        line = Text("  ").join(cells)
        line.no_wrap, line.overflow = True, "ellipsis"
        return line

    def _cells(self) -> list[Text]:
        progress = self._snapshot.progress
        cells: list[Text] = []
        fraction = progress.fraction
        if fraction is not None:
            cells.append(self._bar(fraction))
        if progress.step is not None:
            total = f"/{progress.total}" if progress.total else ""
            cells.append(Text(f"{progress.step}{total}", style="cyan"))
        if self._snapshot.rate:
            cells.append(Text(f"{self._snapshot.rate:.1f}/s"))
        if self._snapshot.eta_s is not None:
            cells.append(Text(f"{seconds(self._snapshot.eta_s)} left"))
        if progress.loss is not None:
            cells.append(Text(f"loss {progress.loss:.4g}", style="magenta"))
        cells.append(Text(self._standing(), style="dim"))
        return cells

    def _bar(self, fraction: float) -> Text:
        full, half, rest = ASCII_BAR if self._console.options.ascii_only else BAR
        if self._console.no_color or self._console.color_system is None:
            rest = " "  # only its colour would tell it from what is done
        wholes, halves = divmod(int(2 * BAR_WIDTH * fraction), 2)
        done = full * wholes + half * halves
        style = "green" if wholes == BAR_WIDTH else "bar.complete"
        return Text.assemble((done, style), (rest * (BAR_WIDTH - len(done)), "bar.back"))

    def _standing(self) -> str:
        state = self._state
        parts = [f"attempt {state.attempt}"] if state.attempt else []
        if state.phase is not State.RUNNING:
            parts.append(state.phase.replace("_", " "))
        elif state.resumed_step is not None:
            parts.append(f"from {at_step(state.resumed_step)}")
        if self._last_decision:
            parts.append(self._last_decision)
        return " · ".join(parts)
