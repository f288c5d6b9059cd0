"""A batch worker's end of the channel: sending reports, and the orders that have arrived.

Owns the descriptor, what was read from it, and what SIGTERM means: the same as `leave`. Never sends
anything of its own, never waits unless it is told to. Invariant: a process that is not the one that
opened the channel has it closed, and neither sends nor reads.

The runner's end of stream means that the runner is gone: then the process ends at once, wherever it
is noticed. Nothing that it could still do would be known to anybody.
"""

from __future__ import annotations

import atexit
import os
import select
import signal
import sys
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from workers.lines import Lines, parse_order
from workers.messages import Leave, Setup
from workers.protocol import ENV_CHANNEL_FD

if TYPE_CHECKING:
    from types import FrameType

    from workers.messages import Do

CHUNK_BYTES = 1 << 18
EXIT_RUNNER_GONE = 1


class _Woken(BaseException):
    """SIGTERM came while there was nothing to do but wait."""


class Channel:
    """The private line to the runner. One for a process, used by its main thread."""

    def __init__(self, fd: int) -> None:
        os.set_inheritable(fd, False)  # noqa: FBT003 - the name says what
        self.leaving = False
        self.orders: deque[Do] = deque()
        self._fd = fd
        self._pid = os.getpid()
        self._lines = Lines()
        self._setup: Setup | None = None
        self._idle = False
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        signal.signal(signal.SIGTERM, self._terminated)
        self._masks = threading.local()
        os.register_at_fork(
            before=self._hold_signals,
            after_in_parent=self._release_signals,
            after_in_child=self._forget,
        )

    @classmethod
    def from_environment(cls) -> Channel:
        """Open the end that the runner left us. Exits 2 where there is none."""
        number = os.environ.get(ENV_CHANNEL_FD, "")
        try:
            return cls(int(number))
        except (ValueError, OSError):
            sys.exit(f"this is started by supervise, which says in {ENV_CHANNEL_FD} where it is")

    def send(self, message: bytes) -> None:
        """Send all of it, waiting for the runner to take it."""
        rest = memoryview(message)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except (BrokenPipeError, ConnectionResetError):
                end_at_once(EXIT_RUNNER_GONE)

    def look(self) -> None:
        """Take in what has arrived, without waiting."""
        while self._poll.poll(0):
            self._take(self._read())

    def wait(self) -> None:
        """Wait for something to arrive, or for SIGTERM."""
        chunk = None
        with suppress(_Woken):
            self._idle = True
            if not self.leaving:
                chunk = self._read()
            self._idle = False
        if chunk is not None:
            self._take(chunk)

    def setup(self) -> Setup:
        """Wait for the first line of the runner and return it."""
        while self._setup is None:
            self._take(self._read())
        return self._setup

    def in_a_fork(self) -> bool:
        """Tell whether this process is a copy that the user's code made of the worker."""
        return os.getpid() != self._pid

    def _read(self) -> bytes:
        try:
            chunk = os.read(self._fd, CHUNK_BYTES)
        except ConnectionResetError:  # it went without reading what we had sent
            chunk = b""
        if not chunk:
            end_at_once(EXIT_RUNNER_GONE)
        return chunk

    def _take(self, chunk: bytes) -> None:
        for line in self._lines.feed(chunk):
            order = parse_order(line)
            if isinstance(order, Setup):
                self._setup = order
            elif isinstance(order, Leave):
                self.leaving = True
            else:
                self.orders.append(order)

    def _terminated(self, _number: int, _frame: FrameType | None) -> None:
        self.leaving = True
        if self._idle:
            self._idle = False  # once: what comes after the wait must not be torn apart
            raise _Woken

    def _hold_signals(self) -> None:
        """Before a fork: let no SIGTERM reach the copy while it still takes it for `leave`."""
        self._masks.held = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))

    def _release_signals(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.held)

    def _forget(self) -> None:
        """In a copy of this process: hold nothing open, and die of SIGTERM like any other.

        Else a pool of the user's could not be ended, and an item of it would never be.
        """
        with suppress(OSError):
            os.close(self._fd)
        self._fd = -1  # a copy of the copy must not close what has this number by then
        if signal.getsignal(signal.SIGTERM) == self._terminated:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._release_signals()


def end(code: int) -> NoReturn:
    """End in order, once all is said: what was registered for the end runs, threads are left.

    Not the interpreter's own end: a thread of the user's that never ends would keep the process,
    and what CUDA does while an interpreter is torn down is not always sound.
    """
    with suppress(Exception):  # of the user's; Python 3.9 raises the last of them
        atexit._run_exitfuncs()  # noqa: SLF001 - there is no other way to run them
    end_at_once(code)


def end_at_once(code: int) -> NoReturn:
    """End without anything that the user's code may have left to do at an end."""
    with suppress(Exception):  # a stream that was closed or has no space
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
