"""The private channel of one worker: orders to it, and its words as they come.

Owns the runner's end of the socket. A worker that does not read its orders holds up nobody: they
wait here. Invariant: what a worker said before it ended is read to its last byte, whenever whoever
reads is interrupted.
"""

import asyncio
import socket
from contextlib import suppress

from workers.lines import LEAVE, Lines, ProtocolBroken, parse_report
from workers.messages import Report

READ_BYTES = 1 << 16
UNREAD_BYTES = 1 << 22  # more than a socket ever holds
GONE = (BrokenPipeError, ConnectionResetError)


class Channel:
    """Lines in both directions."""

    def __init__(self, ours: socket.socket) -> None:
        ours.setblocking(False)  # noqa: FBT003 - the name of the method says it
        self._socket = ours
        self._lines = Lines()
        self._unsent = bytearray()
        self._broken: ProtocolBroken | None = None
        self._unread: int | None = None  # how much may still come; None: no end in sight
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()

    def send(self, line: bytes) -> None:
        """Send a line, now or as soon as there is room."""
        waited = bool(self._unsent)
        self._unsent += line
        if not waited:
            self._send_on()

    def leave(self) -> None:
        """Ask the worker to leave."""
        self.send(LEAVE)

    async def read(self) -> list[Report]:
        """Some words, at least one; none at all when there will be no more.

        Raises:
            ProtocolBroken: it says what no worker of ours says. All before that was read.
        """
        while self._broken is None:
            await asyncio.sleep(0)  # one that never pauses must not keep others from their turn
            chunk = await self._chunk()
            if not chunk:
                return []
            if said := self._said(chunk):
                return said
        raise self._broken

    def finish(self) -> None:
        """The worker has ended: what lies unread is the last, whoever holds its end open."""
        self._unread = UNREAD_BYTES
        if self._waiter is not None:
            _wake(self._waiter)

    def close(self) -> None:
        """Close our end."""
        self._loop.remove_writer(self._socket)
        self._socket.close()

    async def _chunk(self) -> bytes:
        """Some bytes, or none when it is over. No byte is lost where this is cancelled."""
        while self._unread is None or self._unread > 0:
            try:
                chunk = self._socket.recv(READ_BYTES)
            except BlockingIOError:
                if self._unread is not None:
                    return b""
                await self._readable()
            except GONE:
                return b""
            else:
                if self._unread is not None:
                    self._unread -= len(chunk)
                return chunk
        return b""

    async def _readable(self) -> None:
        """Wait until there is something to read, or the worker has ended."""
        self._waiter = waiter = self._loop.create_future()
        self._loop.add_reader(self._socket, _wake, waiter)
        try:
            await waiter
        finally:
            self._loop.remove_reader(self._socket)

    def _said(self, chunk: bytes) -> list[Report]:
        """Whole lines, up to one that is none of ours: the next reading tells of that."""
        said: list[Report] = []
        try:
            for line in self._lines.feed(chunk):
                said.append(parse_report(line))  # noqa: PERF401 - what came before an error counts
        except ProtocolBroken as error:
            self._broken = error
        return said

    def _send_on(self) -> None:
        with suppress(BlockingIOError):
            try:
                sent = self._socket.send(self._unsent)
            except (*GONE, OSError) as error:
                if isinstance(error, BlockingIOError):
                    raise
                self._unsent.clear()  # it is gone, and its end will be seen
            else:
                del self._unsent[:sent]
        if self._unsent:
            self._loop.add_writer(self._socket, self._send_on)
        else:
            self._loop.remove_writer(self._socket)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
