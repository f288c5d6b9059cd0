"""A desk in a thread of this process: for the daemon of the user whose shelf it is.

Owns the thread and the way to it. The connection to the journal is opened and used there alone.
Invariant: whoever asked is told, or has gone; the daemon's end never waits for this thread.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from supervisor.daemon.contracts import Json, ShelfUnavailable
from supervisor.daemon.desk import Desk

MOST_ASKED = 1024

_Answer = asyncio.Future[Json]
_Asked = tuple[str, Mapping[str, Json], _Answer]


class DeskThread:
    """Answers one question after the other. Begins with the first of them."""

    def __init__(self, shelf: Path) -> None:
        self._shelf = shelf
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()

    async def ask(self, question: str, arguments: Mapping[str, Json]) -> Json:
        """Return the answer, however long that takes. Raises Refusal."""
        if self._asked.qsize() >= MOST_ASKED:
            raise ShelfUnavailable("too much is asked at once; try again in a moment")
        if self._thread is None:
            name = f"desk {self._shelf.name}"
            self._thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._thread.start()
        answer: _Answer = self._loop.create_future()
        self._asked.put((question, arguments, answer))
        return await answer

    def dismiss(self) -> None:
        """Have it end when it has answered what it is at."""
        self._asked.put(None)

    async def end(self, limit_s: float) -> None:
        """The same, and wait until it has; not longer than that."""
        if self._thread is None:
            return
        self.dismiss()
        try:
            async with asyncio.timeout(limit_s):
                await self._ended.wait()
        except TimeoutError:
            return  # it hangs on a disk; the process may end all the same
        self._thread.join()

    def _work(self) -> None:
        desk = Desk(self._shelf)
        while (asked := self._asked.get()) is not None:
            question, arguments, answer = asked
            if answer.cancelled():
                continue
            try:
                found = desk.answer(question, arguments)
            except Exception as error:  # noqa: BLE001 - it goes to whoever asked
                self._tell(answer.set_exception, answer, error)
            else:
                self._tell(answer.set_result, answer, found)
        desk.close()
        self._later(self._ended.set)

    def _tell(self, how: Callable[..., None], answer: _Answer, what: Json) -> None:
        def told() -> None:
            if not answer.done():
                how(what)

        self._later(told)

    def _later(self, what: Callable[[], None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what)
