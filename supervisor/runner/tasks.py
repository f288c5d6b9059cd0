"""The tasks of one run: started freely, ended together.

Owns their lifetimes. A task that fails fails the run; none outlives it.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Tasks:
    """Like asyncio.TaskGroup, but it ends its tasks when the run has its result."""

    def __init__(self, result: "asyncio.Future[Any]") -> None:
        self._result = result
        self._running: set[asyncio.Task[Any]] = set()
        self._closing = False

    def start(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run it beside the others."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)
        if self._closing:
            task.cancel()
        return task

    async def close(self) -> None:
        """Cancel what still runs and wait until it has cleaned up; nothing new begins any more."""
        self._closing = True
        for task in self._running:
            task.cancel()
        while self._running:
            await asyncio.wait(self._running)

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._result.done():
            self._result.set_exception(error)
