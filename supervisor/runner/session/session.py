"""The attempt's socket: accepts the processes of a worker, reads what they say, asks them to stop.

Owns the descriptors. Never waits for a worker: what it does not read is dropped. Invariant: what
was sent before the main process ended has been read when the attempt is concluded (`drain`).

The socket lies in the attempt's folder. A path of more than 107 bytes does not fit into an address
(unix(7)), so it is bound through the folder's descriptor.
"""

import asyncio
import os
import resource
import socket
import struct
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from supervisor.runner.session.said import Ears, Said, Speaker
from workers import reports

MOST_SPEAKERS = 256
SHARE = 4  # a quarter of the descriptors that this process may have, at most
TURNS = 3
FULL_S = 1.0  # until it is looked again whether another may be heard
PEER = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)


class NoSession(Exception):
    """The socket cannot be made; the message says why."""


class Session:
    """What the processes of one attempt say. Made by `open_session`, closed by `close`."""

    def __init__(self, listening: socket.socket, path: Path, warn: Callable[[str], None]) -> None:
        self.path = path
        self._warn = warn
        self.said = Said()
        self._listening = listening
        self._speakers: dict[socket.socket, Speaker] = {}
        self._reading: set[asyncio.Task[None]] = set()
        self._ears: Ears | None = None
        self._asked = b""
        self._most = min(MOST_SPEAKERS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // SHARE)

    def serve(self, ears: Ears) -> None:
        """Begin to read, and tell what is news. What was sent until now is read first."""
        self._ears = ears
        self._start(self._accept())

    def ask_stop(self, reason: str, grace_s: float, main_pid: int) -> bool:
        """Tell everybody to stop at the next batch boundary; whether that will do for now.

        It will if the main process listens, or, where that one says nothing (a shell, torchrun),
        any other does.
        """
        self._asked = reports.encode(reports.StopAsked(reason, grace_s))
        for one in self._speakers:
            self._ask(one)
        speakers = self._speakers.values()
        main = [one for one in speakers if one.pid == main_pid]
        return any(one.listens for one in main or speakers)

    def _ask(self, one: socket.socket) -> None:
        with suppress(OSError):  # it is gone, or reads nothing: the signal comes next
            one.send(self._asked, socket.MSG_DONTWAIT)

    async def drain(self) -> None:
        """Read what the ended processes had sent, and what nobody has accepted yet."""
        for _ in range(TURNS):
            await asyncio.sleep(0)  # what a task has received already is not lost with it
        await self._pause()
        self._ears = None
        with suppress(OSError):
            while len(self._speakers) < self._most:
                self._welcome(self._listening.accept()[0])
        for one in list(self._speakers):
            for packet in _left(one):
                await self._take(one, packet)

    async def close(self) -> None:
        """Read no more, and take the socket away."""
        await self._pause()
        for one in self._speakers:
            one.close()
        self._speakers.clear()
        self._listening.close()
        with suppress(OSError):
            self.path.unlink()

    async def _pause(self) -> None:
        for task in self._reading:
            task.cancel()
        if self._reading:
            await asyncio.wait(self._reading)
        self._reading.clear()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._reading.add(task)
        task.add_done_callback(self._read_to_the_end)

    def _read_to_the_end(self, task: asyncio.Task[None]) -> None:
        """A fault of ours, or of the journal, costs what that process says; no more."""
        self._reading.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._warn(f"a process of the worker is not heard any more: {error!r}")

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if len(self._speakers) >= self._most:
                await asyncio.sleep(FULL_S)
                continue
            try:
                one, _ = await loop.sock_accept(self._listening)
            except OSError:  # no descriptor is left: those who are connected go on
                await asyncio.sleep(FULL_S)
                continue
            if self._welcome(one):
                self._start(self._read(one))

    def _welcome(self, one: socket.socket) -> bool:
        one.setblocking(False)  # noqa: FBT003 - the name of the method says it
        peer = one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size)
        pid, uid, _ = PEER.unpack(peer)
        if uid not in {0, os.geteuid()}:
            one.close()
            return False
        speaker = Speaker(pid, reports.Hello(pid))
        self._speakers[one] = speaker
        self.said.speakers.append(speaker)
        if self._asked:
            self._ask(one)
        return True

    async def _read(self, one: socket.socket) -> None:
        try:
            while packet := await _received(one):
                await self._take(one, packet)
                await asyncio.sleep(0)  # one that never pauses must not be all that is heard
        except Exception:
            await self._hang_up(one, None)
            raise
        await self._hang_up(one, self._ears)  # not when cancelled: what is left is drained

    async def _hang_up(self, one: socket.socket, ears: Ears | None) -> None:
        speaker = self._speakers.pop(one)
        one.close()
        await self.said.gone(speaker, ears)

    async def _take(self, one: socket.socket, packet: bytes) -> None:
        report = reports.decode(packet)
        speaker = self._speakers[one]
        if isinstance(report, reports.Hello):
            speaker.hello = report
        elif report is not None:
            await self.said.take(speaker, report, self._ears)


async def _received(one: socket.socket) -> bytes:
    """The next packet; empty when there will be none."""
    try:
        return await asyncio.get_running_loop().sock_recv(one, reports.REPORT_LIMIT_BYTES)
    except OSError:
        return b""


def _left(one: socket.socket) -> Iterator[bytes]:
    """The packets that lie there."""
    with suppress(OSError):
        while packet := one.recv(reports.REPORT_LIMIT_BYTES):
            yield packet


def open_session(path: Path, warn: Callable[[str], None]) -> Session:
    """Make the socket; what lay there is of an attempt that is over. Raises NoSession."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with _short(path) as address:
            listening.bind(address)
        path.chmod(0o600)
        listening.listen(MOST_SPEAKERS)
        listening.setblocking(False)  # noqa: FBT003 - see above
    except OSError as error:
        listening.close()
        raise NoSession(f"no session with the worker: no socket: {error.strerror}") from error
    return Session(listening, path, warn)


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """An address of the socket at `path` that is short enough."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
