"""The parent's side of launch.py: a process started ahead, which waits to become a worker.

Owns the launcher until it became the worker, and its end of the socket. Never uses `preexec_fn`
(it copies the parent's page tables and runs Python between fork and exec). Invariant: a launcher
that did not become a worker is killed and reaped by `close`.
"""

import asyncio
import errno
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from supervisor.host.processes import ProcessId
from supervisor.process import ladder, marks
from supervisor.process.birth import bear, drop
from supervisor.process.command import (
    STANDARD_FDS,
    Command,
    LauncherDied,
    Leaf,
    SpawnFailed,
    SpawnFailure,
)
from supervisor.process.main_process import MainProcess
from supervisor.process.tree import tree_of
from workers import protocol

LAUNCH_FILE = Path(protocol.__file__).with_name("launch.py")
CHUNK_BYTES = 1 << 16
LAST_WORD_S = 5.0
LAUNCH_LIMIT_S = 30.0


class Launcher:
    """One process, ready to become a worker; for one use. Until then it may guard another one's.

    The thread that starts it must live as long as the worker: the kernel ties the parent-death
    signal to the thread that forked.
    """

    __slots__ = ("_socket", "_worker", "inherit_fds", "pid")

    def __init__(self, worker: ladder.Worker, ours: socket.socket, fds: Sequence[int]) -> None:
        self.pid = worker.main.pid  # the worker's, too
        self._worker: ladder.Worker | None = worker
        self.inherit_fds = tuple(fds)
        self._socket: socket.socket | None = ours

    @classmethod
    def start(cls, inherit_fds: Sequence[int] = ()) -> Self:
        """Start one; returns at once, long before it is ready. Raises SpawnFailed."""
        try:
            ours, worker = _spawn(inherit_fds)
        except OSError as error:
            failure = SpawnFailure("launcher", error.errno or 0, sys.executable, [sys.executable])
            raise SpawnFailed(failure) from error
        return cls(worker, ours, inherit_fds)

    def guard(self, leaf: Leaf | None, mark: str, main: ProcessId | None = None) -> bool:
        """Have it end this tree should our process die, also of SIGKILL; "" guards nothing.

        It then takes all in the cgroup, and all who bear the mark or are of the main process's
        session; an orphan that lost all of these it cannot know. The last call counts.
        Returns False when this launcher was used or has died: then nobody guards.
        """
        fields = [(protocol.LAUNCH_VERSION, b"%d" % protocol.PROTOCOL_VERSION)]
        fields.append((protocol.GUARD_MARK, os.fsencode(mark)))
        if main is not None:
            fields.append((protocol.GUARD_MAIN, b"%d %d" % main))
        if leaf is not None:
            fields += [(protocol.GUARD_CGROUP, os.fsencode(entry)) for entry in leaf.entries]
        if self._socket is not None:
            with suppress(BrokenPipeError, ConnectionResetError):
                self._socket.sendall(protocol.encode(fields))
                return True
        return False

    async def become(self, command: Command) -> ladder.Worker:
        """Turn into the command; return the worker when its exec happened.

        Raises LauncherDied, SpawnFailed. Whatever is raised, cancellation too, nothing is left.
        """
        loop = asyncio.get_running_loop()
        ours, worker = self._take(command)
        answer = b""
        try:
            with ours:
                sent = message(command, worker.mark)
                ours.setblocking(False)  # noqa: FBT003 -- the name of the method says it
                with suppress(BrokenPipeError, ConnectionResetError):  # the answer says why
                    await loop.sock_sendall(ours, sent)
                with suppress(ConnectionResetError):
                    while chunk := await loop.sock_recv(ours, CHUNK_BYTES):
                        answer += chunk
            check(command, answer, worker.main)
        except BaseException:
            drop(worker)
            raise
        return worker

    def become_blocking(self, command: Command) -> ladder.Worker:
        """Do the same, blocking; fail a launcher that hangs (its output is a pipe nobody reads)."""
        ours, worker = self._take(command)
        answer = b""
        try:
            with ours:
                sent = message(command, worker.mark)
                ours.settimeout(LAUNCH_LIMIT_S)
                with suppress(BrokenPipeError, ConnectionResetError):
                    ours.sendall(sent)
                with suppress(ConnectionResetError):
                    while chunk := ours.recv(CHUNK_BYTES):
                        answer += chunk
            check(command, answer, worker.main)
        except TimeoutError as error:
            drop(worker)
            late = SpawnFailure("launcher", errno.ETIMEDOUT, "no answer", command.argv)
            raise SpawnFailed(late) from error
        except BaseException:
            drop(worker)
            raise
        return worker

    def close(self) -> None:
        """Kill and reap a launcher that is not wanted any more. Harmless when repeated."""
        if self._socket is not None and self._worker is not None:
            drop(self._worker)  # first: a guard that saw the socket end would have to guess why
            self._socket.close()
            self._socket = self._worker = None

    def _take(self, command: Command) -> tuple[socket.socket, ladder.Worker]:
        """Hand over what this launcher owns: from here on it is used up."""
        if self._socket is None or self._worker is None:
            raise RuntimeError("this launcher was used or closed; a launcher starts one worker")
        if self.inherit_fds != tuple(command.inherit_fds):
            raise ValueError(
                f"the launcher was started with inherit_fds={self.inherit_fds}, "
                f"the command wants {command.inherit_fds}; they must be the same"
            )
        mark = self._worker.mark = command.mark or self._worker.mark
        self._worker.tree = tree_of(self._worker.main, mark, command.leaf)
        taken = self._socket, self._worker
        self._socket = self._worker = None
        return taken


def check(command: Command, answer: bytes, main: MainProcess) -> None:
    """Return if the launcher's answer, read to its end, says that the worker runs; else raise."""
    fields = dict(protocol.decode(answer))
    if protocol.ANSWER_STAGE in fields:
        stage = fields[protocol.ANSWER_STAGE].decode()
        number = int(fields[protocol.ANSWER_ERRNO])
        path = os.fsdecode(fields[protocol.ANSWER_PATH])
        raise SpawnFailed(SpawnFailure(stage, number, path, command.argv))
    if protocol.ANSWER_EXEC not in fields:
        main.wait(LAST_WORD_S)  # the socket closes a moment before the process ends
        raise LauncherDied(SpawnFailure("launcher", 0, str(main.status), command.argv))


def _spawn(inherit_fds: Sequence[int]) -> tuple[socket.socket, ladder.Worker]:
    held: list[socket.socket] = []

    def fork() -> int:
        ours, theirs = (above_standard(end) for end in socket.socketpair())
        held.append(ours)
        with theirs:
            fd = theirs.fileno()
            popen = subprocess.Popen(
                [sys.executable, "-ISE", str(LAUNCH_FILE), str(fd), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(fd, *inherit_fds),
            )
        # We reap it, by pidfd. Left as it is, Popen would warn, and later wait for the pid.
        popen.returncode = 0
        return popen.pid

    try:
        worker = bear(fork, marks.new_mark())
    except BaseException:
        for ours in held:
            ours.close()
        raise
    return held[0], worker


def above_standard(end: socket.socket) -> socket.socket:
    """Move a socket off 0 to 2, which it gets in a parent that closed them, and a child needs."""
    if end.fileno() >= STANDARD_FDS:
        return end
    with end:
        return socket.socket(fileno=fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, STANDARD_FDS))


def message(command: Command, mark: str) -> bytes:
    """Return the launch message of a command: absolute paths, the whole environment.

    `mark` joins the chain of our own, whatever the command's environment says.
    Raises SpawnFailed when the parent's own folder is gone and a path is relative to it.
    """
    fields = [(protocol.LAUNCH_VERSION, b"%d" % protocol.PROTOCOL_VERSION)]
    if command.leaf is not None:
        fields += [(protocol.LAUNCH_CGROUP, os.fsencode(entry)) for entry in command.leaf.entries]
    if command.limits is not None:
        fields += command.limits.fields()
    if command.tracer_pid is not None:
        fields.append((protocol.LAUNCH_TRACER, b"%d" % command.tracer_pid))
    try:
        fields.append((protocol.LAUNCH_CWD, os.fsencode(Path(command.cwd or "").absolute())))
        if command.output is not None:
            output = os.fsencode(Path(command.output).absolute())
            fields.append((protocol.LAUNCH_OUTPUT, output))
    except FileNotFoundError as error:
        raise SpawnFailed(SpawnFailure("chdir", errno.ENOENT, ".", command.argv)) from error
    env = {**(os.environ if command.env is None else command.env)}
    env[protocol.ENV_TREE] = marks.chain_with(mark)
    fields += [(protocol.LAUNCH_ARG, os.fsencode(word)) for word in command.argv]
    fields += [(protocol.LAUNCH_ENV, os.fsencode(f"{k}={v}")) for k, v in env.items()]
    return protocol.encode(fields)
