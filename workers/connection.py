"""The line from a process of the worker to its runner: a socket, and the thread that serves it.

Owns the socket of this process, what could not be sent at once, and the thread "supervise-session",
which sends the latest progress and hears the runner. Never holds up who speaks: what has to be
known at once is sent by the speaker, without waiting; progress is only put down for the thread, so
a step costs no system call. Invariant: nothing that the runner does, or that becomes of it, raises
here; when it is gone the line is dead, and every call on it does nothing.

A forked child inherits socket and memory, but not the thread: it must `forget` the line.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from workers.packets import packet_of, progressed, rank_and_world
from workers.reports import REPORT_LIMIT_BYTES, Hello, StopAsked, decode

if TYPE_CHECKING:
    from collections.abc import Callable

PERIOD_S = 0.5  # between two reports of progress
RETRY_S = 0.05  # while the runner's queue of new lines is full
RETRIES = 400
PACKETS_KEPT = 256
PACKETS_AT_ONCE = 64
PATH_BYTES = 107  # of a Unix address, unix(7)


class Ears(NamedTuple):
    """What the thread calls. `latest` is what was last put down: step, total, metrics."""

    latest: Callable[[], tuple[Any, Any, dict[str, Any]] | None]
    asked: Callable[[], None]
    lost: Callable[[], None]


class Line:
    """One line. `open` makes it; `send` and `wake` may be called by any thread."""

    def __init__(self, path: str, ears: Ears) -> None:
        self.alive = True
        self._path = path
        self._ears = ears
        self._bell, self._heard = socket.socketpair()
        try:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            self._bell.close()
            self._heard.close()
            raise
        self._connected = False
        self._tries = 0
        self._lock = threading.RLock()  # a signal's function may speak while its thread does
        self._kept: deque[bytes] = deque()
        self._sent_all = threading.Event()
        self._ending = False
        self._seen: object = None
        self._step: int | None = None
        self._due_s = 0.0
        self._thread = threading.Thread(target=self._serve, name="supervise-session", daemon=True)
        for one in (self._socket, self._bell, self._heard):
            one.settimeout(0)

    @classmethod
    def open(cls, path: str, ears: Ears) -> Line | None:
        """Connect to the runner's socket and say hello; None when there is nobody."""
        try:
            line = cls(path, ears)
        except OSError:  # no descriptors left
            return None
        try:
            line._connect()
            line.send(Hello(os.getpid(), *rank_and_world()))
            line._thread.start()
        except (OSError, ValueError, RuntimeError):  # no socket, no address, no more threads
            line.forget()
            return None
        return line

    def send(self, report: Any, wait_s: float = 0.0) -> None:  # noqa: ANN401 - any type of reports.py
        """Send a message now, or hand it to the thread and wait so long at most for it to leave."""
        packet = packet_of(report)
        if packet is None or not self.alive:
            return
        with self._lock:
            if not self._kept and self._try(packet):
                return
            if len(self._kept) >= PACKETS_KEPT and not wait_s:
                return  # dropped, for the runner has not read for long: a last word is not
            self._sent_all.clear()
            self._kept.append(packet)
        self.wake()
        if wait_s:
            self._sent_all.wait(wait_s)

    def wake(self) -> None:
        """Have the thread look at what there is to do."""
        with self._lock, suppress(OSError):  # it has been told often enough, or has ended
            self._bell.send(b"!")

    def close(self, wait_s: float) -> None:
        """Send what is left, the last progress included, within so many seconds; then hang up."""
        self._ending = True
        self.wake()
        if self._thread.is_alive():
            self._thread.join(wait_s)

    def forget(self) -> None:
        """Close this process's copies and say nothing, so that a forked child holds nothing."""
        self.alive = False
        for one in (self._socket, self._bell, self._heard):
            one.close()
        self._sent_all = threading.Event()  # the thread may have held the lock of the other
        self._sent_all.set()

    def _connect(self) -> None:
        """Raise OSError when there is nobody; a runner that is busy is tried again later."""
        self._tries += 1
        with suppress(BlockingIOError):
            connect(self._socket, self._path)
            self._connected = True

    def _try(self, packet: bytes) -> bool:
        """Tell whether the packet has left, or can never leave."""
        if not self._connected:
            return False
        try:
            self._socket.send(packet, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                return False
            if error.errno != errno.EMSGSIZE:
                self._lose()
        return True

    def _lose(self) -> None:
        self.alive = False
        self._sent_all.set()
        self._ears.lost()
        self.wake()

    # --- In the thread ---

    def _serve(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are the script's
        try:
            while self.alive:
                with suppress(BlockingIOError):  # first, so that what it rang for is seen
                    self._heard.recv(1 << 12)
                ending = self._ending  # before the last look, so that it sees all that was said
                if not self._connected:
                    self._reconnect()
                self._hear()
                self._resend()
                self._report(at_once=ending)
                if ending:
                    break
                self._wait()
        finally:
            self._finish()

    def _reconnect(self) -> None:
        try:
            self._connect()
        except OSError:
            self._lose()
        if not self._connected and self._tries > RETRIES:
            self._lose()

    def _hear(self) -> None:
        for _ in range(PACKETS_AT_ONCE if self._connected and self.alive else 0):
            try:
                packet = self._socket.recv(REPORT_LIMIT_BYTES)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                self._lose()
                return
            if isinstance(decode(packet), StopAsked):
                self._ears.asked()

    def _resend(self) -> None:
        with self._lock:
            while self._kept and self.alive and self._try(self._kept[0]):
                self._kept.popleft()
            if not self._kept:
                self._sent_all.set()

    def _report(self, *, at_once: bool) -> None:
        """Send the latest progress where it is due: a step that was not sent yet."""
        latest = self._ears.latest()
        now_s = time.monotonic()
        if latest is None or latest is self._seen or (now_s < self._due_s and not at_once):
            return
        report = progressed(*latest, known=self._step)
        if report is None:
            self._seen = latest
            return
        packet = packet_of(report)
        with self._lock:
            behind = bool(self._kept)
            if not behind and (packet is None or self._try(packet)):
                self._seen, self._step, self._due_s = latest, report.step, now_s + PERIOD_S

    def _wait(self) -> None:
        """Sleep until there is something to do: a packet, the bell, the next report."""
        poll = select.poll()
        poll.register(self._heard, select.POLLIN)
        left_s = self._due_s - time.monotonic()
        wait_s = left_s if left_s > 0 else PERIOD_S
        if self._connected:
            poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._kept else 0))
        else:
            wait_s = RETRY_S
        poll.poll(max(1, round(wait_s * 1000)))

    def _finish(self) -> None:
        """Give what the runner could not take yet a moment, then hang up."""
        if self.alive and self._connected and self._kept:
            poll = select.poll()
            poll.register(self._socket, select.POLLOUT)
            poll.poll(round(RETRY_S * 1000))
            self._resend()
        with self._lock:  # nobody is in the middle of a send
            self.forget()


def connect(one: socket.socket, path: str) -> None:
    """Connect to a path of any length. Raises OSError."""
    if len(os.fsencode(path)) <= PATH_BYTES:
        one.connect(path)
        return
    folder, name = os.path.split(path)
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        one.connect(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)
