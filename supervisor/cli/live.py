"""The view of a run on a terminal: events scroll by, one line at the bottom stays.

Owns that line: bar, step, rate, time left, loss, GPU memory, attempt and the last decision; while
nothing can move, what it waits for. Drawn at most once a second, and when an event changes it,
because watching must cost the training nothing.
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from supervisor.cli.lines import gpu_words
from supervisor.core.amounts import seconds
from supervisor.core.causes import State
from supervisor.core.events import (
    AttemptEnded,
    AttemptSpawned,
    CheckpointChosen,
    CheckpointVerified,
    DeadlineDeferred,
    DeadlinePassed,
    Event,
    GpusAwaited,
    GpusSetAside,
    GpuTroubleSeen,
    HoldRequired,
    LimitExceeded,
)
from supervisor.core.state import JobState
from supervisor.runner.listener import BatchSnapshot, GpuUsage, Snapshot
from supervisor.runner.words import at_step, sentence
from supervisor.views.plain import printable
from supervisor.watch.progress import Progress

DRAW_EVERY_S = 1.0
BAR_WIDTH, LEAST_BAR_WIDTH = 28, 8
BAR_PLACE, REASON_PLACE = 1, 8  # behind the name; behind where the job stands
LEAST_REASON_WIDTH = 12
GAP = "  "
LEAST_BAR = LEAST_BAR_WIDTH + len(GAP)
ECHO_WIDTH = 3  # of a terminal's `^C`, and the column behind it
BAR, ASCII_BAR = ("━", "╸", "━"), ("=", "-", " ")  # done, half done, not done

_LIVELY = {State.RUNNING, State.STOPPING}  # in other states, rate and time left are history

_STYLES: dict[type[Event], str] = {
    CheckpointVerified: "dim",
    DeadlinePassed: "yellow",
    HoldRequired: "bold yellow",
}

_ENDS_NO_WAIT = GpusSetAside | GpuTroubleSeen | CheckpointVerified | LimitExceeded


@dataclass(frozen=True, slots=True)
class Wait:
    """What keeps the job from moving: since when, in few words, and in full."""

    what: str
    reason: str


def waiting(before: Wait | None, event: Event, state: JobState) -> Wait | None:
    """What the job waits for after an event, if it waits."""
    if isinstance(event, DeadlineDeferred):
        # The reason alone: it says that the worker is silent, and needs the room.
        return Wait("", printable(event.reason)) if event.reason else before
    if isinstance(event, GpusAwaited):
        what, reason = "waiting for GPUs since", event.reason
    elif state.phase is State.HOLDING:
        what, reason = "holding since", state.why
    else:
        return before if isinstance(event, _ENDS_NO_WAIT) else None
    if before is not None and before.what.startswith(what):  # for another reason: it goes on
        return Wait(before.what, printable(reason))
    return Wait(f"{what} {time.strftime('%H:%M:%S')}", printable(reason))


class LiveView:
    """A listener with a line of its own. A context manager: the terminal is restored at its end."""

    bar_rank = 99  # what is less important than this gives way to the bar

    def __init__(self, name: str, console: Console | None = None) -> None:
        self._name = name
        self._console = console or Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._state = JobState()
        self._snapshot = Snapshot(0, Progress())
        self._gpus = GpuUsage()
        self._wait: Wait | None = None
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
        if isinstance(event, AttemptSpawned):
            self._gpus = GpuUsage()  # what another worker used is history
        if isinstance(event, CheckpointChosen):
            self._snapshot = Snapshot(state.attempt, Progress(step=event.step))
        words = self._sentence(event, state)
        if words:
            self._scroll(words, self._style(event, state))
        waited, self._wait = self._wait, waiting(self._wait, event, state)
        if event.durable or self._wait != waited:
            self._draw()

    def progressed(self, snapshot: Snapshot) -> None:
        """Keep it, and draw when the last drawing is old enough."""
        self._snapshot = snapshot
        self._draw_if_due()

    def batch_progressed(self, snapshot: BatchSnapshot) -> None:
        """Nothing: a batch job has a view of its own."""

    def gpus_used(self, usage: GpuUsage) -> None:
        """Keep it, and draw when that would change something."""
        changed = gpu_words(usage) != gpu_words(self._gpus)
        self._gpus = usage
        if changed:
            self._draw_if_due()

    def warned(self, text: str) -> None:
        """Let the warning scroll by."""
        self._scroll(f"warning: {text}", "yellow")

    def _sentence(self, event: Event, state: JobState) -> str | None:
        return sentence(event, state)

    def _style(self, event: Event, state: JobState) -> str:
        if isinstance(event, AttemptEnded):
            return "bold green" if state.phase is State.SUCCEEDED else "bold red"
        return _STYLES.get(type(event), "")

    def _scroll(self, words: str, style: str) -> None:
        at = time.strftime("%H:%M:%S")
        for line in words.splitlines():
            self._console.print(Text.assemble((at, "dim"), " ", (line, style)))

    def _draw_if_due(self) -> None:
        if time.monotonic() - self._drawn_at >= DRAW_EVERY_S:
            self._draw()

    def _draw(self) -> None:
        self._drawn_at = time.monotonic()
        self._live.update(self._line(), refresh=True)

    def _line(self) -> Text:
        """One line of text: a rich table in its place costs four times as much to draw.

        What does not fit is left out, the least important first; the bar takes the room that is
        left, and a reason to wait is shortened to it. The line never fills the terminal: a Ctrl-C
        is echoed behind it, and must not wrap.
        """
        room = self._console.width - ECHO_WIDTH
        cells: dict[int, Text] = {}
        fraction = self._fraction if self._moves else None
        kept = 0  # for the bar
        for rank, place, text, style in sorted(self._cells()):
            if rank > self.bar_rank and fraction is not None and not kept and room >= LEAST_BAR:
                kept = LEAST_BAR
                room -= kept
            cell = Text(text, style)
            if place == REASON_PLACE and room >= LEAST_REASON_WIDTH:
                cell.truncate(room, overflow="ellipsis")
            if text and (cell.cell_len <= room or not cells):
                cells[place] = cell
                room -= cell.cell_len + len(GAP)
        room += kept
        if fraction is not None and room >= LEAST_BAR_WIDTH:
            cells[BAR_PLACE] = self._bar(fraction, min(room, BAR_WIDTH))
        line = Text(GAP).join([cells[place] for place in sorted(cells)])
        line.truncate(max(1, self._console.width - ECHO_WIDTH), overflow="ellipsis")
        line.no_wrap = True
        return line

    def _cells(self) -> list[tuple[int, int, str, str]]:
        """What may stand on the line: (importance, 0 first; place from the left; text; style)."""
        snapshot, progress = self._snapshot, self._snapshot.progress
        step = "" if progress.step is None else str(progress.step)
        rate = f"{snapshot.rate:.1f}/s" if self._moves and snapshot.rate else ""
        left = self._moves and snapshot.eta_s is not None
        eta = f"{seconds(snapshot.eta_s or 0.0)} left" if left else ""
        gpus = gpu_words(self._gpus) if self._state.phase in _LIVELY else ""
        loss = "" if progress.loss is None else f"loss {progress.loss:.4g}"
        if step and progress.total:
            step += f"/{progress.total}"
        return [
            (0, 0, self._name, "bold"),
            (2, 2, step, "cyan"),
            (7, 3, rate, ""),
            (4, 4, eta, ""),
            (5, 5, loss, "magenta"),
            (6, 6, gpus, ""),
            (1, 7, self._standing(), "dim"),
            (3, REASON_PLACE, "" if self._wait is None else self._wait.reason, "yellow"),
            (8, 9, self._last_decision, "dim"),
        ]

    @property
    def _fraction(self) -> float | None:
        return self._snapshot.progress.fraction

    @property
    def _moves(self) -> bool:
        """Whether rate and time left are those of now."""
        return self._state.phase in _LIVELY and self._wait is None

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
        if self._wait is not None:
            where = self._wait.what
        elif state.phase is not State.RUNNING:
            where = state.phase.replace("_", " ")
        elif state.resumed_step is not None:
            where = f"from {at_step(state.resumed_step)}"
        return " · ".join(filter(None, (attempt, where)))
