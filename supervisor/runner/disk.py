"""Runs slow disk work beside the event loop.

Owns one daemon thread and its queue. Work that never returns (a dead network file system) holds up
neither the supervision nor the end of the program.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
Job = tuple[asyncio.Future[Any], Callable[[], Any]]


class DiskThread:
    """Calls are done one after the other, in order, in a thread of their own."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The call's result or exception. Cancelling the wait does not cancel the call."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="disk", daemon=True)
            self._thread.start()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.put((future, lambda: call(*args, **kwargs)))
        return await future

    def close(self) -> None:
        """Ends after the work that is queued; waits for none of it."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, call = job
            try:
                result, error = call(), None
            except BaseException as raised:  # noqa: BLE001 - it belongs to whoever awaits the call
                result, error = None, raised
            _hand_over(future, result, error)


def _hand_over(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    def settle() -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        elif isinstance(error, StopIteration):  # refused by futures: nobody would ever be told
            future.set_exception(RuntimeError("the call raised StopIteration"))
        else:
            future.set_exception(error)

    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        future.get_loop().call_soon_threadsafe(settle)
