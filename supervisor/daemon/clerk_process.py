"""One life of a clerk, seen from the daemon.

Owns its start as the user, its socket and its end. What it says is a stranger's word: too long,
too late, not understood or not asked for, and it is ended. Invariant: the pid is not reaped before
it has ended, so a signal of ours never reaches anybody else.
"""

import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from supervisor.daemon import contracts
from supervisor.daemon.accounts import Account, as_user, environment
from supervisor.daemon.clerk import FORMAT, LONGEST_LINE
from supervisor.daemon.contracts import Json, Refusal, ShelfUnavailable

MOST_ASKED = 256
MOST_UNSENT_BYTES = 2 * LONGEST_LINE
LEAVE_S = 1.0
REAP_S = 5.0
LAST_WORDS_BYTES = 4096
PROC = Path("/proc")
_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")
_KINDS = {
    kind.__name__: kind
    for kind in vars(contracts).values()
    if isinstance(kind, type) and issubclass(kind, Refusal)
}


class ClerkLost(Exception):
    """It ended before it had answered, or said what is no answer; the message says how."""


class Unasked(ValueError):
    """It said what nobody asked, or said it twice."""


@dataclass(frozen=True, slots=True)
class Post:
    """Where a clerk works: on which shelf, as whom (None: this process's user), by what."""

    shelf: Path
    who: Account | None
    python: Sequence[str]


class ClerkProcess:
    """A running clerk; `connect` comes first. Raises OSError when it cannot be started."""

    def __init__(self, post: Post) -> None:
        self._waiting: dict[int, asyncio.Future[Json]] = {}
        self._given_up: set[int] = set()  # whoever asked has gone; the answer may still come
        self._numbers = itertools.count(1)
        self._gone = asyncio.Event()
        self._greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._writer: asyncio.StreamWriter | None = None
        self._pump: asyncio.Task[None] | None = None
        self._fault = ""
        self.heard_s = asyncio.get_running_loop().time()
        with contextlib.ExitStack() as undo:
            self._socket, theirs = socket.socketpair()
            undo.callback(self._socket.close)
            self._errors, errors = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            undo.callback(os.close, self._errors)
            with theirs, os.fdopen(errors, "wb") as stderr:
                self._child = _start(post, theirs, stderr.fileno())
            self.pid = self._child.pid
            unshelter(self.pid)
            self._pidfd = os.pidfd_open(self.pid)
            undo.pop_all()
        asyncio.get_running_loop().add_reader(self._pidfd, self._gone.set)

    async def connect(self) -> None:
        """Listen to it until it says that it is there. Raises ClerkLost."""
        reader, self._writer = await asyncio.open_connection(sock=self._socket, limit=LONGEST_LINE)
        self._pump = asyncio.create_task(self._listen(reader))
        await asyncio.shield(self._greeted)

    @property
    def is_lost(self) -> bool:
        """Whether nothing more can be asked of it."""
        return self._pump is None or self._pump.done() or self._gone.is_set()

    @property
    def is_idle(self) -> bool:
        """Whether it was asked nothing that it has not answered."""
        return not self._waiting

    async def ask(self, question: str, arguments: Mapping[str, Json]) -> Json:
        """Return its answer, however long that takes. Raises Refusal, ClerkLost."""
        number = next(self._numbers)
        try:
            asked = {"id": number, "question": question, "arguments": arguments}
            line = json.dumps(asked, separators=(",", ":")).encode() + b"\n"
        except (ValueError, TypeError, RecursionError) as error:
            raise Refusal(f"{question}: what was sent is no JSON: {error}") from error
        if len(line) > LONGEST_LINE:
            raise Refusal(f"{question}: {len(line)} bytes are too many at once")
        if self._writer is None or self.is_lost:
            raise ClerkLost(self._obituary())
        unsent = self._writer.transport.get_write_buffer_size()
        if len(self._waiting) >= MOST_ASKED or unsent > MOST_UNSENT_BYTES:
            raise ShelfUnavailable("too much is asked at once; try again in a moment")
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(line)
            return await answer
        finally:
            if self._waiting.pop(number, None) is not None:
                self._given_up.add(number)

    async def end(self) -> None:
        """Let it leave, and end it if it does not."""
        self._hang_up()
        if not await self._left(LEAVE_S):
            await self.kill()
        self._release()

    async def kill(self) -> None:
        """End it by force; a stopped one, too."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        await self._left(REAP_S)

    async def _left(self, limit_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._gone.wait()
        return self._child.poll() is not None

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            with contextlib.suppress(OSError):  # that it was killed is told another way
                while line := await reader.readline():
                    self.heard_s = asyncio.get_running_loop().time()
                    self._hear(line)
            await self._left(LEAVE_S)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            self._fault = f"it said what cannot be understood ({type(error).__name__})"
            self._cut()
        finally:
            self._fail()

    def _hear(self, line: bytes) -> None:
        """Raises what json.loads and a strange document raise."""
        if _HALF_CHARACTER.search(line):
            json.dumps(json.loads(line), ensure_ascii=False).encode()  # ValueError for halves
        told = json.loads(line, parse_constant=_no_number)
        if "hello" in told:
            if told["hello"] != FORMAT:
                raise ValueError("another version")
            if self._greeted.done():
                raise Unasked
            self._greeted.set_result(None)
            return
        number = told["id"]
        answer = self._waiting.get(number)
        if answer is None or answer.done():
            self._hear_late(number)
        elif "refused" in told:
            kind, message = told["refused"]["kind"], told["refused"]["message"]
            answer.set_exception(_KINDS.get(str(kind), ShelfUnavailable)(str(message)))
        else:
            answer.set_result(told["answer"])
        self._waiting.pop(number, None)

    def _hear_late(self, number: int) -> None:
        """Let an answer go that nobody waits for any more. Raises Unasked where nobody did."""
        if number not in self._waiting and number not in self._given_up:
            raise Unasked
        self._given_up.discard(number)

    def _fail(self) -> None:
        lost = ClerkLost(self._obituary())
        for answer in (*self._waiting.values(), self._greeted):
            if not answer.done():
                answer.set_exception(lost)
        self._greeted.exception()  # it may be that nobody asks for it any more

    def _obituary(self) -> str:
        if self._fault:
            return self._fault
        code = self._child.poll()
        how = "it hung up" if code is None else f"exit code {code}"
        if code is not None and code < 0:
            how = signal.Signals(-code).name
        with contextlib.suppress(OSError):
            words = os.read(self._errors, LAST_WORDS_BYTES).decode(errors="replace").strip()
            if words:
                last = "".join(one if one.isprintable() else " " for one in words.splitlines()[-1])
                how += f": {last}"
        return how

    def _cut(self) -> None:
        """Hear nothing more of it, whoever still asks: it may say more than we can read."""
        if self._writer is not None:
            self._writer.transport.abort()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _hang_up(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
        if self._writer is not None:
            self._writer.transport.abort()
        else:
            self._socket.close()

    def _release(self) -> None:
        """Give its descriptors back. One that cannot be killed yet is left to its parent's end."""
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        os.close(self._errors)


def _start(post: Post, theirs: socket.socket, errors: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*post.python, "-m", "supervisor.daemon.clerk", str(post.shelf), str(os.getpid())],
        stdin=theirs.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=errors,
        close_fds=True,
        start_new_session=True,
        cwd="/",
        umask=0o077,
        env=environment(post.who, os.environ),
        **as_user(post.who),
    )


def unshelter(pid: int, proc: Path = PROC) -> None:
    """Take the daemon's rank from a clerk: short of memory, the kernel is to leave the daemon.

    By us, as a user can keep their clerk from doing it.
    """
    with contextlib.suppress(OSError, ValueError):
        rank = proc / str(pid) / "oom_score_adj"
        if int(rank.read_text("ascii")) < 0:
            rank.write_text("0", "ascii")


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no JSON")
