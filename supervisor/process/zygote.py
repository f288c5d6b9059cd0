"""A process that imported the heavy modules once, and forks workers that need not do so again.

Owns the parent's side of workers/zygote.py: its start, its end, and the adoption of the launchers
that it forks. Decides nothing, and never waits without a limit: whatever is wrong with the zygote
is a ZygoteFailed, upon which the caller starts its worker cold. Invariant: a launcher that `fork`
returned is a child of this process, so the zygote may die at any time and takes nobody with it.
"""

import asyncio
import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from supervisor.process import ladder, marks, orphans
from supervisor.process.child import Child, isolated_child
from supervisor.process.command import Command, SpawnFailed
from supervisor.process.launcher import Launcher, above_standard
from supervisor.process.main_process import MainProcess
from supervisor.process.tree import Sweep
from supervisor.process.warm import path0_of, prefix_of, warm_reason
from workers import protocol

ZYGOTE_FILE = Path(protocol.__file__).with_name("zygote.py")
START_LIMIT_S = 180.0  # torch from a cold disk, on a busy host
FORK_LIMIT_S = 10.0
PACKET_BYTES = 1 << 16
SETUP_LIMIT_BYTES = 1 << 16
LOG_TAIL_BYTES = 2000
# Room for the mark of each worker, where the kernel shows the environment of a process, and for its
# command, where the kernel shows that.
MARK_ROOM = "-" * 64
TITLE_ROOM = " " * 2048


class ZygoteFailed(Exception):
    """There is no warm worker, and why, in words; a cold one may be started instead."""


@dataclass(frozen=True, slots=True)
class Preload:
    """What to build once and share: `entry` is `pkg:Class`, and its `preload(**args)` is called.

    A class without `preload` is merely imported.
    """

    entry: str
    args: Mapping[str, object] = field(default_factory=dict)


class Zygote:
    """A running zygote. Made by `start`; for any number of forks, one at a time.

    For a subreaper alone (`orphans.become_subreaper`), and for its main thread: that is whose end
    the kernel ties the workers to.
    """

    __slots__ = (
        "_child", "_control", "_failed", "_fork_limit_s", "_forks", "_turn",
        "command", "modules", "pid",
    )  # fmt: skip

    def __init__(
        self, child: Child, control: socket.socket, command: Command, modules: Sequence[str]
    ) -> None:
        self.pid = child.pid
        self.command = command
        self.modules = tuple(modules)
        self._child = child
        self._control = control
        self._failed = False
        self._forks = 0
        self._fork_limit_s = FORK_LIMIT_S
        self._turn = asyncio.Lock()

    @classmethod
    async def start(
        cls,
        modules: Sequence[str],
        *,
        command: Command,
        preload: Preload | None = None,
        limit_s: float = START_LIMIT_S,
    ) -> Self:
        """Start one for workers of this command, and wait until it has imported all modules.

        The command's `argv` is that of the workers: its interpreter and flags are the zygote's.
        Its `cwd`, `env`, `inherit_fds` and `limits` are the workers', too; its `output` and `leaf`
        the zygote's own. A worker leaves that leaf only for one of its own.
        Raises ZygoteFailed; then nothing is left of it.
        """
        if not orphans.are_adopted():
            raise RuntimeError("a zygote's launchers come to a subreaper: call become_subreaper()")
        if reason := warm_reason(command.argv, command.argv[0]):
            raise ZygoteFailed(f"this command cannot be run warm: {reason}")
        setup = _setup(modules, command, preload)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)  # noqa: FBT003 -- the name of the method says it
        try:
            with above_standard(theirs) as end:
                child = await isolated_child(_zygote_command(command, end.fileno())).__aenter__()
        except BaseException as error:
            ours.close()
            if isinstance(error, SpawnFailed):
                raise ZygoteFailed(f"the zygote: {error}") from error
            raise
        zygote = cls(child, ours, command, modules)
        try:
            await zygote._begin(setup, limit_s)
        except BaseException as error:
            try:
                await zygote.close()
            except ladder.ChildUnkillable as stuck:
                raise ZygoteFailed(f"{error}; and the zygote does not end: {stuck}") from error
            raise
        return zygote

    @property
    def alive(self) -> bool:
        """Whether it may still fork: it has not ended, and has answered so far."""
        return not self._failed and self._child.status is None

    async def fork(self, channel: int | None = None) -> Launcher:
        """Return a launcher whose command will find all modules imported.

        It is used like any other: `isolated_child(command, launcher=...)`, with the `inherit_fds`
        of the zygote's own command followed by the channel, if there is one. What the zygote could
        not run faithfully (other flags, another PYTHONPATH, no script) it executes.
        Raises ZygoteFailed, within a limit; a zygote that did not answer is killed.
        """
        async with self._turn:
            if not self.alive:
                raise ZygoteFailed(f"the zygote is gone ({self._child.status or 'given up'})")
            ours, theirs = (above_standard(end) for end in socket.socketpair())
            try:
                ours.setblocking(False)  # noqa: FBT003 -- see above
                mark = marks.new_mark()
                with theirs:
                    self._request(theirs, channel, marks.chain_with(mark))
                async with asyncio.timeout(self._fork_limit_s):
                    await self._forked()
                    pid = await _hello(ours)
                worker = _adopt(pid, mark)
            except BaseException as error:
                ours.close()
                if isinstance(error, TimeoutError):
                    self._give_up()
                    late = f"the zygote did not fork within {self._fork_limit_s:g} s"
                    raise ZygoteFailed(late) from error
                if isinstance(error, OSError):
                    self._give_up()
                    raise ZygoteFailed(f"the zygote cannot be reached: {error}") from error
                raise
        ours.setblocking(True)  # noqa: FBT003 -- see above
        held = self.command.inherit_fds
        return Launcher(worker, ours, held if channel is None else (*held, channel))

    def kill(self) -> None:
        """End it at once, without waiting; `close` must follow."""
        self._give_up()

    async def close(self) -> None:
        """End it, and everything its modules started; its workers live on. Raises ChildUnkillable.

        Harmless when repeated.
        """
        self._give_up()  # a fork that waits sees the end of the stream
        async with self._turn:
            self._control.close()
        if self._child.pidfd >= 0:
            await self._child.close()

    async def _begin(self, setup: bytes, limit_s: float) -> None:
        """Have it import; raise ZygoteFailed when it did not."""
        try:
            with suppress(BrokenPipeError):  # the answer, or its end, says why
                self._control.send(setup)
            async with asyncio.timeout(limit_s):
                answer = await self._receive()
        except TimeoutError as error:
            raise ZygoteFailed(
                f"the zygote has not imported {', '.join(self.modules)} within {limit_s:g} s"
            ) from error
        except OSError as error:
            raise ZygoteFailed(f"the zygote cannot be reached: {error}") from error
        if protocol.ZYGOTE_REFUSED in answer:
            raise ZygoteFailed(_reason(answer))

    def _request(self, theirs: socket.socket, channel: int | None, chain: str) -> None:
        self._forks += 1
        fields = [
            (protocol.ZYGOTE_FORK, b"%d" % self._forks),
            (protocol.ZYGOTE_PARENT, b"%d" % os.getpid()),
            (protocol.ZYGOTE_CHAIN, os.fsencode(chain)),
        ]
        fds = [theirs.fileno()]
        if channel is not None:
            fields.append((protocol.ZYGOTE_CHANNEL, b"%d" % channel))
            fds.append(channel)
        with suppress(BrokenPipeError):  # it is dead, as its answer will say
            socket.send_fds(self._control, [protocol.encode(fields)], fds)

    async def _forked(self) -> None:
        """Wait for the answer to the last request; one to an earlier, cancelled one is dropped."""
        while True:
            answer = await self._receive()
            if answer[protocol.ZYGOTE_FORK] != b"%d" % self._forks:
                continue
            if protocol.ZYGOTE_REFUSED in answer:
                raise ZygoteFailed(_reason(answer))
            return

    async def _receive(self) -> dict[bytes, bytes]:
        """Return the next answer. Raises ZygoteFailed at the end of the stream."""
        packet = b""
        with suppress(ConnectionResetError):  # what it never read tells of its end like this
            packet = await asyncio.get_running_loop().sock_recv(self._control, PACKET_BYTES)
        if packet:
            return dict(protocol.decode(packet))
        self._give_up()
        status = await self._child.wait()
        raise ZygoteFailed(f"the zygote died: {status}{_last_words(self.command.output)}")

    def _give_up(self) -> None:
        """Never ask it again: it is dead, or may hang for ever."""
        self._failed = True
        self._child.signal(signal.SIGKILL)


def _zygote_command(command: Command, control: int) -> Command:
    prefix = prefix_of(command.argv)
    return replace(
        command,
        argv=(*prefix, str(ZYGOTE_FILE), str(control), TITLE_ROOM),
        inherit_fds=(*command.inherit_fds, control),
        mark=marks.new_mark() + MARK_ROOM,
        tracer_pid=None,
    )


def _setup(modules: Sequence[str], command: Command, preload: Preload | None) -> bytes:
    fields = [(protocol.ZYGOTE_MODULE, name.encode()) for name in modules]
    fields += [(protocol.ZYGOTE_PREFIX, os.fsencode(word)) for word in prefix_of(command.argv)]
    if (path0 := path0_of(command.argv, command.cwd)) is not None:
        fields.append((protocol.ZYGOTE_PATH0, os.fsencode(path0)))
    if preload is not None:
        args = json.dumps(dict(preload.args))
        fields.append((protocol.ZYGOTE_PRELOAD, preload.entry.encode()))
        fields.append((protocol.ZYGOTE_ARGS, args.encode()))
    setup = protocol.encode(fields)
    if len(setup) > SETUP_LIMIT_BYTES:
        raise ZygoteFailed(f"its arguments are {len(setup)} bytes long, more than a zygote takes")
    return setup


async def _hello(ours: socket.socket) -> int:
    """Return the pid that a forked launcher tells, once it is a child of this process."""
    told = b""
    while not told.endswith(b"\0\0"):
        chunk = await asyncio.get_running_loop().sock_recv(ours, PACKET_BYTES)
        if not chunk:
            raise ZygoteFailed("the forked launcher died before it could wait for its command")
        told += chunk
    return int(dict(protocol.decode(told))[protocol.ZYGOTE_PID])


def _adopt(pid: int, mark: str) -> ladder.Worker:
    """Take charge of a launcher. Raises ZygoteFailed when it has died meanwhile."""
    try:
        main = MainProcess(pid)
    except ProcessLookupError as error:
        raise ZygoteFailed(f"the forked launcher {pid} died at once") from error
    if main.exited():
        status = main.status
        main.reap()
        main.close()
        raise ZygoteFailed(f"the forked launcher {pid} died at once: {status}")
    return ladder.Worker(main, Sweep(main, mark), mark)


def _reason(answer: Mapping[bytes, bytes]) -> str:
    return answer[protocol.ZYGOTE_REFUSED].decode(errors="replace")


def _last_words(log: Path | str | None) -> str:
    """Return the end of its log, which says what killed it."""
    if log is None:
        return ""
    with suppress(OSError), Path(log).open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
        text = file.read().decode(errors="replace").strip()
        return f"; its last words:\n{text}" if text else ""
    return ""
