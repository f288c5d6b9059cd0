"""Finished items become acknowledged ones: their results on disk first, then the ledger.

Owns the order of the two, and the file of results. Many items share one write and one commit.
Invariant: an item that the ledger calls done has its line in the file; a line that no settled item
has is cut off by the next runner, which runs that item again.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from supervisor.batch.results import Results, ResultsProblem
from supervisor.journal import JournalUnavailable
from supervisor.runner.opening import OpenJob

EVERY_S = 0.05  # the longest that a finished item waits to be acknowledged
MOST = 2000  # items of one commit
MOST_BYTES = 8 << 20  # of their results
RETRY_S = 2.0


class Settling:
    """The results of one batch job. `start` runs work beside the caller's.

    `lost` is told, once, that the file is not what it was: nothing can be acknowledged any more.
    """

    def __init__(
        self,
        job: OpenJob,
        results: Results,
        warn: Callable[[str], None],
        start: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._ledger = job.journal.ledger(job.id)
        self._results = results
        self._warn = warn
        self._start = start
        self._numbers: list[int] = []
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self._turn = asyncio.Lock()
        self._given_up = asyncio.Event()
        self.waits = False  # for a disk that takes nothing
        self.problem = ""
        self.lost: Callable[[str], Coroutine[Any, Any, None]] | None = None

    def add(self, number: int, item: str, result: bytes) -> None:
        """An item is finished."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EVERY_S, self._time_is_up)
        self._numbers.append(number)
        self._bytes += len(item) + len(result)
        self._results.add(item, result)

    @property
    def full(self) -> bool:
        """Whether so much is waiting that whoever brings more must wait, too."""
        return len(self._numbers) >= MOST or self._bytes >= MOST_BYTES

    @property
    def unsettled(self) -> int:
        """How many items are finished and not acknowledged."""
        return len(self._numbers)

    @property
    def usable(self) -> bool:
        """Whether more can be settled. Else what is not acknowledged is forgotten, to be redone."""
        return not self.problem and not self._given_up.is_set()

    def give_up(self) -> None:
        """Wait for no disk any more."""
        self._given_up.set()

    async def settle(self) -> None:
        """Acknowledge all that is finished; a full disk is waited out, unless that is given up."""
        async with self._turn:
            told = False
            while self._numbers and not self.problem:
                try:
                    self._ledger.settle(self._numbers, self._results.sync())
                except ResultsProblem as error:
                    self._lose(str(error))
                    return
                except (OSError, JournalUnavailable) as error:
                    if not told:
                        told = self.waits = True
                        self._warn(f"results cannot be written, and workers wait: {error}")
                    if await self._gives_up_within(RETRY_S):
                        return  # what is not settled is done again
                    continue
                self._numbers.clear()
                self._bytes = 0
            self.waits = False
            if told:
                self._warn("results can be written again")

    def close(self) -> None:
        """Let go of the file."""
        if self._timer is not None:
            self._timer.cancel()
        self._results.close()

    def _time_is_up(self) -> None:
        self._timer = None
        self._start(self.settle())

    def _lose(self, problem: str) -> None:
        self.problem = problem
        self._warn(problem)
        if self.lost is not None:
            self._start(self.lost(problem))

    async def _gives_up_within(self, delay_s: float) -> bool:
        try:
            async with asyncio.timeout(delay_s):
                await self._given_up.wait()
        except TimeoutError:
            return False
        return True
