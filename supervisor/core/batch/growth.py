"""How much memory a worker gains over its items: leaks, told apart from peaks.

Owns the arithmetic. The first figure after an item is the baseline. What counts is the least of the
last few figures, so that one large image is no leak, and memory that never comes back is.
"""

from dataclasses import dataclass, replace

SUSTAINED = 3  # figures in a row


@dataclass(frozen=True, slots=True)
class Growth:
    """The memory of one worker over the items it finished.

    `latest` are the last figures after the baseline, each in bytes and after how many items.
    """

    baseline: int | None = None
    baseline_items: int = 0
    latest: tuple[tuple[int, int], ...] = ()

    def seen(self, used_bytes: int | None, items: int) -> "Growth":
        """One more figure, after so many items; one before the first item says nothing."""
        if used_bytes is None or items <= self.items:
            return self
        if self.baseline is None:
            return Growth(used_bytes, items)
        return replace(self, latest=(*self.latest, (used_bytes, items))[-SUSTAINED:])

    @property
    def items(self) -> int:
        """After how many items the last figure was; 0 while there is none."""
        return self.latest[-1][1] if self.latest else self.baseline_items

    @property
    def sustained_bytes(self) -> int:
        """What it gained and kept; 0 as long as too little is known."""
        if self.baseline is None or len(self.latest) < SUSTAINED:
            return 0
        return max(0, min(self.latest)[0] - self.baseline)

    @property
    def per_item_bytes(self) -> float | None:
        """What each item left behind; None as long as too little is known."""
        if self.baseline is None or len(self.latest) < SUSTAINED:
            return None
        least, items = min(self.latest)
        return max(0, least - self.baseline) / (items - self.baseline_items)
