"""The view of a batch job where there is no terminal: plain lines, one event each.

Owns their form, and how seldom progress is told: once in ten seconds, and at each tenth part.
"""

import time

from supervisor.cli.item_words import item_sentence
from supervisor.cli.lines import LineView
from supervisor.core.amounts import seconds, size
from supervisor.core.events import Event
from supervisor.core.state import JobState
from supervisor.runner.listener import BatchSnapshot
from supervisor.views.item_names import NameOf
from supervisor.views.plain import counted

PROGRESS_EVERY_S = 10.0
TENTHS = 10
_SLOW = 0.1  # items a second; below, they are counted by the minute


def items_words(seen: BatchSnapshot) -> str:
    """`123/1000`."""
    return f"{seen.done}/{seen.total}"


def rate_words(seen: BatchSnapshot) -> str:
    """`41.2 items/s`, or by the minute where they are slow; nothing where it is not known."""
    rate = seen.items_per_s
    if not rate:
        return ""
    return f"{rate * 60:.1f} items/min" if rate < _SLOW else f"{rate:.1f} items/s"


def leaks_words(seen: BatchSnapshot) -> str:
    """`leak/item 1.2 MiB + 3.0 MiB GPU`, as far as one is known."""
    parts = []
    if seen.host_leak_bytes:
        parts.append(size(seen.host_leak_bytes))
    if seen.gpu_leak_bytes:
        parts.append(f"{size(seen.gpu_leak_bytes)} GPU")
    return f"leak/item {' + '.join(parts)}" if parts else ""


class LineBatch(LineView):
    """A listener that prints, for a job over items; `name_of` names an item."""

    def __init__(self, name: str, name_of: NameOf) -> None:
        super().__init__(name)
        self._name_of = name_of
        self._tenth = 0

    def batch_progressed(self, snapshot: BatchSnapshot) -> None:
        """Print how far it is, now and then."""
        now = time.monotonic()
        tenth = TENTHS * snapshot.done // snapshot.total if snapshot.total else 0
        if now < self._next_progress_at and tenth <= self._tenth:
            return
        self._next_progress_at = now + PROGRESS_EVERY_S
        self._tenth = max(tenth, self._tenth)
        self._print(", ".join(_parts(snapshot)))

    def _sentence(self, event: Event, state: JobState) -> str | None:
        return item_sentence(event, state, self._name_of)


def _parts(seen: BatchSnapshot) -> list[str]:
    told = [
        f"{items_words(seen)} items done",
        rate_words(seen),
        f"{seconds(seen.eta_s)} left" if seen.eta_s else "",
        f"{seen.quarantined} quarantined" if seen.quarantined else "",
        counted(seen.suspects, "suspect") if seen.suspects else "",
        counted(seen.workers, "worker") if seen.workers else "",
        leaks_words(seen),
        "" if seen.gpu_bytes is None else f"GPU {size(seen.gpu_bytes)}",
    ]
    return [part for part in told if part]
