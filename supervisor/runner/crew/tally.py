"""How far a batch job is, for whoever watches it and for other processes.

Owns the rate and the rhythm of telling. Counts are the crew's own, so they may be a moment ahead of
what is settled.
"""

from supervisor.core.batch.state import BatchState
from supervisor.runner.listener import BatchSnapshot
from supervisor.runner.loop import Loop
from supervisor.watch.rate import Pace

TELL_S = 0.5
SHOW_S = 5.0  # how often other processes (`ps`, `show`) see a new count


class Tally:
    """The count of one attempt."""

    def __init__(self, loop: Loop, number: int) -> None:
        self._loop = loop
        self._number = number
        self._pace = Pace()
        self._tell_at = self._show_at = 0.0
        self._leaks: dict[str, float | None] = {"host": None, "gpu": None}

    def tell(self, state: BatchState, gpu_bytes: int | None, *, last: bool = False) -> None:
        """Tell the watchers, if it is time."""
        now = self._loop.clock()
        self._pace.observe(state.done, now)
        self._see_leaks(state)
        if now >= self._tell_at or last:
            self._tell_at = now + TELL_S
            self._loop.listener.batch_progressed(self._snapshot(state, gpu_bytes, now))
        if now >= self._show_at or last:
            self._show_at = now + SHOW_S
            self._loop.show_progress(state.done, state.total)

    def _snapshot(self, state: BatchState, gpu_bytes: int | None, now: float) -> BatchSnapshot:
        left = state.total - state.quarantined
        return BatchSnapshot(
            attempt=self._number,
            total=state.total,
            done=state.done,
            quarantined=state.quarantined,
            suspects=sum(len(one.items) for one in state.groups),
            workers=min(state.rules.parallel, len(state.workers)),  # not the one that waits
            items_per_s=self._pace.steps_per_s(now),
            eta_s=self._pace.eta_s(left, now),
            host_leak_bytes=self._leaks["host"],
            gpu_leak_bytes=self._leaks["gpu"],
            gpu_bytes=gpu_bytes,
            chunk=state.size,
        )

    def _see_leaks(self, state: BatchState) -> None:
        """The latest that is known of any worker: a new one must first do some items."""
        for worker in state.workers:
            for name, growth in (("host", worker.host), ("gpu", worker.gpu)):
                if growth.per_item_bytes is not None:
                    self._leaks[name] = growth.per_item_bytes
