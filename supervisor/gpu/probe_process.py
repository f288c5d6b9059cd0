"""One life of the probe's child process, seen from its parent.

Owns its start, its socket and its end. Never waits without a bound, and never signals by number.
Started plainly, without launcher or cgroup, and in a session of its own so that Ctrl-C does not
reach it. Invariant: the pid is not reaped before it has ended, so it cannot be anybody else's.
"""

import asyncio
import contextlib
import itertools
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

from supervisor.core.gpu import GpuTrouble
from supervisor.gpu import wire

LEAVE_S = 1.0
REAP_S = 2.0
LAST_WORDS_BYTES = 2000

# The child imports from where this process does, whatever lies in the current folder.
BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop());"
    " from supervisor.gpu.probe_main import main; sys.exit(main(sys.argv[1:]))"
)


class ProbeFailed(RuntimeError):
    """The probe could not be started, ended by itself, or said what cannot be understood."""


class ProbeProcess:
    """A running probe. Raises OSError when it cannot be started; `connect` comes first."""

    def __init__(self, tell: Callable[[GpuTrouble], None]) -> None:
        self._tell = tell
        self._waiting: dict[int, asyncio.Future[wire.Json]] = {}
        self._numbers = itertools.count(1)
        self._exited = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        with contextlib.ExitStack() as undo:
            self._socket, theirs = socket.socketpair()
            undo.callback(self._socket.close)
            self._errors_fd = os.memfd_create("probe-errors")
            undo.callback(os.close, self._errors_fd)
            with theirs, os.fdopen(os.memfd_create("probe-note"), "r+b", buffering=0) as note:
                note.truncate(wire.NOTE_BYTES)
                self._note = mmap.mmap(note.fileno(), wire.NOTE_BYTES, prot=mmap.PROT_READ)
                undo.callback(self._note.close)
                self._child = self._spawn(theirs.fileno(), note.fileno())
            self.pid = self._child.pid
            self._pidfd = os.pidfd_open(self.pid)
            undo.pop_all()

    def _spawn(self, fd: int, note_fd: int) -> subprocess.Popen[bytes]:
        path = json.dumps([place for place in sys.path if isinstance(place, str)])
        return subprocess.Popen(
            [sys.executable, "-P", "-c", BOOT, str(fd), str(note_fd), str(os.getpid()), path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors_fd,
            pass_fds=(fd, note_fd),
            start_new_session=True,
        )

    async def connect(self) -> None:
        """Begin to listen to it."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._pidfd, self._exited.set)
        reader, self._writer = await asyncio.open_connection(sock=self._socket)
        self._pump = asyncio.create_task(self._listen(reader))

    @property
    def ended(self) -> bool:
        """Whether nothing more can be asked of it."""
        return self._pump is None or self._pump.done() or self._exited.is_set()

    async def ask(self, do: str, *arguments: wire.Json) -> wire.Json:
        """Return its answer, however long that takes. Raises ProbeFailed."""
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            if self._writer is None or self.ended:
                raise ProbeFailed(self._obituary())
            self._writer.write(wire.frame({"id": number, "do": do, "with": arguments}))
            return await answer
        finally:
            del self._waiting[number]

    def asking(self) -> tuple[str, str]:
        """Return the function of NVML that it is in, and of which GPU; blanks when in none."""
        function, _, uuid = self._note[:].rstrip(b"\0").decode(errors="replace").partition(" ")
        return function, uuid.strip()

    async def end(self) -> bool:
        """Let it leave, kill it if it does not, and return whether it is gone for certain."""
        if self._waiting:  # it may be in the driver, and would not notice
            return await self.kill()
        self._hang_up()
        return await self._gone(LEAVE_S) or await self.kill()

    async def kill(self) -> bool:
        """Kill it, and return whether it is gone: not while it hangs in the kernel."""
        self._hang_up()
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        return await self._gone(REAP_S)

    def reap(self) -> bool:
        """Collect it if it has ended, and return whether it had."""
        if self._child.poll() is None:
            return False
        if self._pidfd >= 0:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                asyncio.get_running_loop().remove_reader(self._pidfd)
                if self._writer is not None:  # one that left by itself was not hung up on
                    self._writer.transport.abort()
            os.close(self._pidfd)
            os.close(self._errors_fd)
            self._note.close()  # holds a descriptor too
            self._pidfd = -1
        return True

    def _hang_up(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
        if self._writer is not None:
            self._writer.transport.abort()
        self._fail(ProbeFailed("the GPU probe was closed"))

    async def _gone(self, timeout_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._exited.wait(), timeout_s)
        return self.reap()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                header = await reader.readexactly(wire.HEADER.size)
                self._heard(wire.message(await reader.readexactly(wire.length(header))))
        except wire.Garbled as error:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self._fail(ProbeFailed(f"the GPU probe (pid {self.pid}) sent {error}; it was killed"))
        except (asyncio.IncompleteReadError, OSError):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._exited.wait(), LEAVE_S)
            self._fail(ProbeFailed(self._obituary()))

    def _heard(self, message: dict[str, wire.Json]) -> None:
        if "trouble" in message:
            self._tell(wire.unpack_trouble(message["trouble"]))
            return
        number = message.get("id")
        answer = self._waiting.get(number) if isinstance(number, int) else None
        if answer is None or answer.done():  # whoever asked has given up
            return
        if "answer" in message:
            answer.set_result(message["answer"])
        else:
            said = message.get("failed", message)
            answer.set_exception(ProbeFailed(f"the GPU probe (pid {self.pid}) failed: {said}"))

    def _fail(self, error: ProbeFailed) -> None:
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(error)

    def _obituary(self) -> str:
        status = self._child.poll()
        how = "was closed" if status is None else f"ended with exit code {status}"
        if status is not None and status < 0:
            how = f"was ended by {_signal_name(-status)}"
        size = os.fstat(self._errors_fd).st_size
        last = os.pread(self._errors_fd, LAST_WORDS_BYTES, max(0, size - LAST_WORDS_BYTES))
        said = last.decode(errors="replace").strip().rpartition("\n")[2]
        return f"the GPU probe (pid {self.pid}) {how}{': ' if said else ''}{said}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
