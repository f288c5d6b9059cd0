"""One answer for all who ask the same at the same moment.

Owns answers of shelves, for FRESH_S: a hundred clients that watch a job cost what one does. An
entry that changed is another key, so whoever has just stopped a job is never told that it runs. A
refusal is shared only by those who waited for it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

FRESH_S = 0.25
MOST = 512

Answer = dict[str, Any]


class Shared:
    """Answers that are not older than FRESH_S. They are not to be changed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answers: dict[Hashable, tuple[float, asyncio.Future[Answer]]] = {}

    async def get(self, key: Hashable, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer to what `key` stands for."""
        now = self._clock()
        asked_at, answer = self._answers.get(key, (0.0, None))
        if answer is None or now - asked_at >= FRESH_S or _failed(answer):
            if len(self._answers) >= MOST:
                self._forget(now)
            answer = asyncio.ensure_future(ask())
            answer.add_done_callback(_failed)  # one that all have left before it came is nobody's
            self._answers[key] = (now, answer)
        # One who leaves does not take the answer away from the others.
        return await asyncio.shield(answer)

    def _forget(self, now: float) -> None:
        kept = {key: one for key, one in self._answers.items() if now - one[0] < FRESH_S}
        self._answers = kept if len(kept) < MOST else {}


def _failed(answer: asyncio.Future[Answer]) -> bool:
    return answer.done() and (answer.cancelled() or answer.exception() is not None)
