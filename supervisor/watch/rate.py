"""How fast a job goes, and when it will be there.

Owns the arithmetic of pace. Never reads a clock: every instant is a monotonic time in seconds that
the caller passes in, so the same observations always give the same answer.
"""

from collections import deque

_SAMPLES = 64
"""Kept per window. Closer observations are merged, so memory and work are bounded."""


class Pace:
    """Steps per second over a sliding window of `window_s`.

    A step that goes back (a resume from a checkpoint) starts the measurement anew. A stall lets
    the rate sink from the moment the next observation is overdue.
    """

    def __init__(self, window_s: float = 60.0) -> None:
        self._window_s = window_s
        self._spacing_s = window_s / _SAMPLES
        self._samples: deque[tuple[float, int]] = deque()

    def observe(self, step: int, now: float) -> None:
        """Note that the job was seen at `step`. A step seen again tells nothing new."""
        if self._samples and step < self._samples[-1][1]:
            self._samples.clear()
        if self._samples:
            last_at, last_step = self._samples[-1]
            if step == last_step:
                return
            now = max(now, last_at)
            # Merge into the last sample what comes too soon after the one before it.
            if len(self._samples) > 1 and now - self._samples[-2][0] < self._spacing_s:
                self._samples.pop()
        self._samples.append((now, step))
        # Two are kept whatever their age: a job may report once an hour.
        while len(self._samples) > 1 and self._samples[1][0] <= now - self._window_s:
            self._samples.popleft()

    def steps_per_s(self, now: float) -> float | None:
        """Return the rate, or None before two different steps were seen at different times."""
        if not self._samples:
            return None
        (first_at, first_step), (last_at, last_step) = self._samples[0], self._samples[-1]
        elapsed_s = last_at - first_at
        if elapsed_s <= 0:
            return None
        usual_gap_s = elapsed_s / (len(self._samples) - 1)
        overdue_s = max(0.0, now - last_at - usual_gap_s)
        return (last_step - first_step) / (elapsed_s + overdue_s)

    def eta_s(self, total: int | None, now: float) -> float | None:
        """Return the seconds left to `total` steps, or None while nobody can tell."""
        if total is None or not self._samples:
            return None
        left = total - self._samples[-1][1]
        if left <= 0:
            return 0.0
        rate = self.steps_per_s(now)
        return left / rate if rate else None
