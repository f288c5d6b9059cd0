"""One answer for all who ask the same at the same moment.

Owns answers of shelves, for FRESH_S: a hundred clients that watch a job cost what one does, and so
does a hundred who list them. A queue that changed is another key, so whoever has just stopped a job
is never told that it runs. A refusal is shared only by those who waited for it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable

from supervisor.daemon.contracts import Json

FRESH_S = 0.25

Answer = asyncio.Future[Json]


class Shared:
    """Answers that are not older than FRESH_S. They are not to be changed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answers: dict[Hashable, tuple[float, Answer]] = {}

    async def get(self, key: Hashable, ask: Callable[[], Awaitable[Json]]) -> Json:
        """The answer to what `key` stands for."""
        now = self._clock()
        asked_at, answer = self._answers.get(key, (0.0, None))
        if answer is None or now - asked_at >= FRESH_S or _failed(answer):
            answer = asyncio.ensure_future(ask())
            answer.add_done_callback(_failed)  # one that all have left before it came is nobody's
            self._answers[key] = (now, answer)
            # A listing of thousands is not kept until somebody asks again.
            asyncio.get_running_loop().call_later(FRESH_S, self._forget, key, answer)
        if answer.done():
            return answer.result()
        # One who leaves does not take the answer away from the others.
        return await asyncio.shield(answer)

    def _forget(self, key: Hashable, answer: Answer) -> None:
        if self._answers.get(key, (0.0, None))[1] is answer:
            del self._answers[key]


def _failed(answer: Answer) -> bool:
    return answer.done() and (answer.cancelled() or answer.exception() is not None)
