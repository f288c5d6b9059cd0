"""`isolated_child`: an asynchronous context manager for one child process.

Owns a child from its launcher to its last descriptor. Never uses asyncio's own child watching
(on 3.11 a thread per child, and waitpid by number). Invariant: when the block is left, for whatever
reason, the child and everything it started are gone, or ChildUnkillable says that the kernel holds
it.

Leaving the block while the child runs kills at once; a caller who wants it to save first says
`await child.stop()`. The last step is synchronous, so no cancellation can come between.
"""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType

from supervisor.host.processes import ProcessId, still_living
from supervisor.process import ladder
from supervisor.process.birth import drop
from supervisor.process.command import Command, ExitStatus, LauncherDied, check_grace
from supervisor.process.launcher import Launcher

KILL_LIMIT_S = 10.0  # a process that unmaps a lot of memory takes seconds to die
FINISH_LIMIT_S = 3.0  # the same wait, but blocking the event loop: only after a cancellation


class Child:
    """A running child. Made by `isolated_child`; valid until its block ends."""

    __slots__ = (
        "_abandoned", "_command", "_exited", "_guard", "_loop", "_worker",
        "pid", "pidfd", "start_ticks",
    )  # fmt: skip

    def __init__(self, worker: ladder.Worker, command: Command) -> None:
        self._worker = worker
        self._command = command
        self._exited = asyncio.Event()
        self._abandoned = False
        self._guard: Launcher | None = None
        self._loop = asyncio.get_running_loop()
        self.pid = worker.main.pid
        self.pidfd = worker.main.pidfd
        self.start_ticks = worker.main.start_ticks
        self._loop.add_reader(self.pidfd, self._on_exit)

    @property
    def status(self) -> ExitStatus | None:
        """How the main process ended; None while it runs."""
        return self._worker.main.status

    async def wait(self) -> ExitStatus:
        """Return how the main process ended, as soon as it has. Any number of tasks may wait.

        The process is not reaped by this: the block still ends the rest of its tree.
        """
        await self._exited.wait()
        return self._status()

    def signal(self, number: int) -> None:
        """Send a signal to the main process; nothing happens when it has ended."""
        self._worker.main.signal(number)

    async def stop(self, grace_s: float | None = None) -> ExitStatus:
        """Ask the child to stop, give it `grace_s` seconds, then kill what is left of its tree.

        The command's stop signals go to the main process one after the other. When it has ended and
        others of its tree live (`sh -c "python train.py"`), they get the last signal and the rest
        of the time. Raises ChildUnkillable.
        """
        grace_s = self._command.grace_s if grace_s is None else grace_s
        check_grace(grace_s)
        await self._drive(ladder.stop(self._worker, self._command.stop_signals, grace_s))
        return await self.kill()

    async def kill(self) -> ExitStatus:
        """Kill the tree, wait until it is gone, reap the main process. Raises ChildUnkillable.

        The wait is bounded; `survivors` names members that are still there after it.
        """
        await self._drive(ladder.kill(self._worker, KILL_LIMIT_S))
        return self._status()

    def survivors(self) -> list[ProcessId]:
        """Return the members that outlived the last kill and still live."""
        return [member for member in self._worker.survivors if still_living(member)]

    def members(self) -> list[ProcessId]:
        """Look for everybody of the tree that lives, the main process included.

        Without a cgroup this reads all of /proc: some 10 µs for each process on the host.
        """
        return self._worker.tree.members()

    def guard_by(self, launcher: Launcher) -> bool:
        """Have a launcher that waits for its own use end this tree should our process be killed.

        It is relieved when the child is gone. Returns False when that launcher is no more.
        """
        self._guard = launcher
        main = ProcessId(self.pid, self.start_ticks)
        return launcher.guard(self._command.leaf, self._worker.mark, main)

    async def close(self) -> None:
        """End everything and close the pidfd, as leaving the block does. Raises ChildUnkillable."""
        limit_s = FINISH_LIMIT_S
        try:
            await self.kill()
        except ladder.ChildUnkillable:
            limit_s = 0.0
            raise
        finally:
            self._finish(limit_s)

    def _status(self) -> ExitStatus:
        status = self._worker.main.status
        if status is None:
            raise RuntimeError(f"child {self.pid} has not ended")
        return status

    def _on_exit(self) -> None:
        main = self._worker.main
        if main.exited():
            self._loop.remove_reader(self.pidfd)
            self._exited.set()
            if self._abandoned:
                main.reap()
                main.close()

    async def _drive(self, steps: Iterator[float]) -> None:
        for pause_s in steps:
            if self._exited.is_set():
                await asyncio.sleep(pause_s)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._exited.wait()

    def _finish(self, limit_s: float) -> None:
        """Do what is left of the ending, without giving way to anything."""
        try:
            self._finish_once(limit_s)
        except KeyboardInterrupt:
            # The second Ctrl-C strikes wherever Python is; each step may be repeated.
            self._finish_once(limit_s)
            raise

    def _finish_once(self, limit_s: float) -> None:
        main = self._worker.main
        if main.pidfd < 0:
            return
        try:
            ladder.drive(ladder.kill(self._worker, limit_s), main)
        except ladder.ChildUnkillable:
            self._abandoned = True  # the reader stays, to reap it when the kernel lets go
            raise
        if self._guard is not None:
            self._guard.guard(None, "")
        if not self._loop.is_closed():
            self._loop.remove_reader(main.pidfd)
        main.close()
        self._exited.set()


class IsolatedChild:
    """The context manager that `isolated_child` returns; for one use."""

    __slots__ = ("_child", "_command", "_launcher")

    def __init__(self, command: Command, launcher: Launcher | None) -> None:
        self._command = command
        self._launcher = launcher
        self._child: Child | None = None

    async def __aenter__(self) -> Child:
        """Start the child."""
        if self._child is not None:
            raise RuntimeError("this isolated_child(...) was entered before; make another")
        worker = await _start(self._command, self._launcher)
        try:
            self._child = Child(worker, self._command)
        except BaseException:
            drop(worker)
            raise
        return self._child

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the child and its tree, whatever happened."""
        if self._child is None:
            return
        if isinstance(error, GeneratorExit):
            # The coroutine is being thrown away: nobody would resume it after an await.
            self._child._finish(FINISH_LIMIT_S)  # noqa: SLF001 -- its own context manager
        else:
            await self._child.close()


def isolated_child(command: Command, *, launcher: Launcher | None = None) -> IsolatedChild:
    """Return the context manager that runs a command as an isolated child.

    `async with isolated_child(Command(argv=["python", "train.py"])) as child: await child.wait()`

    `launcher`, started ahead, saves the start of an interpreter; one that died is replaced. It is
    used up, also when the start fails. The child lives in a session of its own, dies with the
    thread that started its launcher, and holds no descriptor but 0 to 2 and `inherit_fds`.
    Entering raises SpawnFailed with stage, errno and path when there is nothing to run.
    """
    return IsolatedChild(command, launcher)


async def _start(command: Command, launcher: Launcher | None) -> ladder.Worker:
    if launcher is not None:
        with suppress(LauncherDied):
            return await launcher.become(command)
    return await Launcher.start(command.inherit_fds).become(command)
