"""One answer for all who ask the same at the same moment.

Owns answers of shelves, for FRESH_S after the question: a hundred clients that watch a job, or list
them all, cost what one does. The key says what the queue knows, so whoever has just stopped a job
is never told that it runs. A refusal is shared only by those who waited for it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable

from supervisor.daemon.contracts import Json

FRESH_S = 0.25

Answer = asyncio.Future[Json]


class Shared:
    """Answers that are fresh, or still on their way. They are not to be changed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answers: dict[Hashable, tuple[float, Answer]] = {}

    async def get(self, key: Hashable, ask: Callable[[], Awaitable[Json]]) -> Json:
        """The answer to what `key` stands for."""
        now = self._clock()
        asked_at, answer = self._answers.get(key, (0.0, None))
        if answer is None or (answer.done() and (now - asked_at >= FRESH_S or _failed(answer))):
            answer = asyncio.ensure_future(ask())
            self._answers[key] = (now, answer)
            answer.add_done_callback(lambda one: self._came(key, one))
        if answer.done():
            return answer.result()
        # One who leaves does not take the answer away from the others.
        return await asyncio.shield(answer)

    def _came(self, key: Hashable, answer: Answer) -> None:
        """Keep an answer for a while; a listing of thousands not until somebody asks again."""
        _failed(answer)  # one that all have left before it came is nobody's
        answer.get_loop().call_later(FRESH_S, self._forget, key, answer)

    def _forget(self, key: Hashable, answer: Answer) -> None:
        if self._answers.get(key, (0.0, None))[1] is answer:
            del self._answers[key]


def _failed(answer: Answer) -> bool:
    return answer.done() and (answer.cancelled() or answer.exception() is not None)
