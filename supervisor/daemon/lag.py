"""How late the event loop is: the one figure that tells whether the daemon keeps up.

Owns the measurement; a timer that comes late says how long everybody else had to wait.
"""

import asyncio

EVERY_S = 0.25
WINDOW = 240


class LoopLag:
    """The lateness of a timer, in seconds: of the last time, and the worst of the last minute."""

    def __init__(self) -> None:
        self.last_s = 0.0
        self._seen: list[float] = []
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def worst_s(self) -> float:
        """The worst of the last minute."""
        return max(self._seen, default=0.0)

    def start(self) -> None:
        """Begin to measure."""
        loop = asyncio.get_running_loop()
        self._due = loop.time() + EVERY_S
        self._timer = loop.call_at(self._due, self._look)

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self.last_s = max(0.0, asyncio.get_running_loop().time() - self._due)
        self._seen = [*self._seen[1 - WINDOW :], self.last_s]
        self.start()
