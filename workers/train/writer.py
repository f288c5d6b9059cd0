"""The one thread that writes what a training leaves behind, beside the training.

Owns the order of all writing: metric lines, evaluations and snapshots reach the disk in the order
in which the training thread gave them. Never waits for the training, which only appends to a queue.
Invariant: what was given before a snapshot is written before that snapshot is published; after
something failed, nothing that was given later is written.
"""

from __future__ import annotations

import atexit
import threading
from collections import deque
from itertools import groupby
from typing import Any, Protocol

WAKE_S = 0.3
QUEUE_LIMIT = 100_000  # lines; a training that is that far ahead waits for its disk
EXIT_S = 5.0  # how long an exit waits for what was given


class Sink(Protocol):
    """Where items of one sort are written, by the thread."""

    def write(self, items: list[Any]) -> None:
        """Write them in order; called by the thread alone."""


class Writer:
    """Writes items, each with its sink, in order; the thread starts with the first of them."""

    def __init__(self) -> None:
        self._queue: deque[tuple[Sink, Any]] = deque()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._failure: BaseException | None = None

    def put(self, sink: Sink, item: object) -> None:
        """Have an item written within a fraction of a second."""
        self._queue.append((sink, item))
        if self._thread is None:
            self._start()
        elif len(self._queue) > QUEUE_LIMIT:
            self.settle()

    def put_now(self, sink: Sink, item: object) -> None:
        """Have an item written, after all before it, as soon as the thread comes to it."""
        self.put(sink, item)
        self._wake.set()

    def check(self) -> None:
        """Raise what the thread failed with, on the training thread."""
        if self._failure is not None:
            raise self._failure

    def settle(self, limit_s: float | None = None) -> bool:
        """Wait until all that was given is written or has failed, at most `limit_s` seconds.

        Tells whether it was.
        """
        if self._thread is None or not self._thread.is_alive():
            return True
        mark = _Mark()
        self._queue.append((mark, None))
        self._wake.set()
        return mark.reached.wait(limit_s)

    def close(self, limit_s: float | None = None) -> None:
        """Write what was given and end the thread; `check` tells afterwards whether it failed."""
        atexit.unregister(self._at_exit)
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(limit_s)

    def _start(self) -> None:
        # A daemon, so that a write that hangs cannot keep the process; but an exit that cut torch
        # off in the middle of one would end in an abort, so it is waited for.
        self._thread = threading.Thread(target=self._run, name="train-writer", daemon=True)
        atexit.register(self._at_exit)
        self._thread.start()

    def _at_exit(self) -> None:
        self.close(EXIT_S)

    def _run(self) -> None:
        while True:
            self._wake.wait(WAKE_S)
            self._wake.clear()
            closing = self._closing  # read first: what was given before it was set is in the queue
            self._drain()
            if closing:
                return

    def _drain(self) -> None:
        queue = self._queue
        given = [queue.popleft() for _ in range(len(queue))]
        for sink, items in groupby(given, key=_sink):
            if self._failure is None or isinstance(sink, _Mark):
                self._write(sink, [item for _, item in items])

    def _write(self, sink: Sink, items: list[Any]) -> None:
        try:
            sink.write(items)
        except BaseException as error:  # noqa: BLE001 - raised on the training thread by `check`
            self._failure = error


class _Mark:
    """A place in the queue that can be waited for."""

    def __init__(self) -> None:
        self.reached = threading.Event()

    def write(self, items: list[Any]) -> None:
        """All before it is written."""
        del items
        self.reached.set()


def _sink(given: tuple[Sink, Any]) -> Sink:
    return given[0]
