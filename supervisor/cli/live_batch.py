"""The view of a batch job on a terminal: events scroll by, one line at the bottom stays.

Owns what stands on that line: bar, items, their rate, time left, what is quarantined, what an item
leaks, memory of the GPUs. How it is drawn, and when, is LiveView's.
"""

from rich.console import Console

from supervisor.cli.item_words import item_sentence
from supervisor.cli.lines import gpu_words
from supervisor.cli.lines_batch import items_words, leaks_words, rate_words
from supervisor.cli.live import REASON_PLACE, LiveView
from supervisor.core.amounts import seconds
from supervisor.core.events import Event
from supervisor.core.item_events import ItemQuarantined, ItemsPlanned, ItemsSuspected
from supervisor.core.state import JobState
from supervisor.runner.listener import BatchSnapshot, GpuUsage
from supervisor.views.item_names import NameOf
from supervisor.views.plain import counted

_STYLES: dict[type[Event], str] = {ItemQuarantined: "red", ItemsSuspected: "yellow"}


class LiveBatch(LiveView):
    """A listener with a line of its own, for a job over items; `name_of` names an item."""

    bar_rank = 6

    def __init__(self, name: str, name_of: NameOf, console: Console | None = None) -> None:
        super().__init__(name, console)
        self._name_of = name_of
        self._batch = BatchSnapshot(0, 0, 0)

    def saw(self, event: Event, state: JobState) -> None:
        """Let the event scroll by, and draw the line anew."""
        if isinstance(event, ItemsPlanned):
            done = event.total - event.left - event.quarantined
            self._batch = BatchSnapshot(state.attempt, event.total, done, event.quarantined)
        super().saw(event, state)

    def batch_progressed(self, snapshot: BatchSnapshot) -> None:
        """Keep it, and draw when the last drawing is old enough."""
        self._batch = snapshot
        if snapshot.gpu_bytes is not None:
            self._gpus = GpuUsage(snapshot.gpu_bytes, self._gpus.utilization)
        self._draw_if_due()

    def _sentence(self, event: Event, state: JobState) -> str | None:
        return item_sentence(event, state, self._name_of)

    def _style(self, event: Event, state: JobState) -> str:
        return _STYLES.get(type(event)) or super()._style(event, state)

    @property
    def _fraction(self) -> float | None:
        return self._batch.done / self._batch.total if self._batch.total else None

    def _cells(self) -> list[tuple[int, int, str, str]]:
        """What may stand on the line: (importance, 0 first; place from the left; text; style)."""
        seen, moves = self._batch, self._moves
        eta = f"{seconds(seen.eta_s)} left" if moves and seen.eta_s else ""
        bad = f"{seen.quarantined} quarantined" if seen.quarantined else ""
        workers = counted(seen.workers, "worker") if moves and seen.workers else ""
        suspects = counted(seen.suspects, "suspect") if seen.suspects else ""
        return [
            (0, 0, self._name, "bold"),
            (2, 2, items_words(seen) if seen.total else "", "cyan"),
            (6, 3, rate_words(seen).replace(" items", "") if moves else "", ""),
            (4, 4, eta, ""),
            (3, 5, bad, "bold red"),
            (9, 6, suspects, "yellow"),
            (7, 9, leaks_words(seen), "magenta"),
            (8, 10, gpu_words(self._gpus) if moves else "", ""),
            (10, 11, workers, "dim"),
            (1, 7, self._standing(), "dim"),
            (5, REASON_PLACE, "" if self._wait is None else self._wait.reason, "yellow"),
        ]

    def _standing(self) -> str:
        """Where the job is, if it is not just running: attempts hardly matter to items."""
        words = super()._standing()
        return "" if self._moves and self._state.attempt <= 1 else words
