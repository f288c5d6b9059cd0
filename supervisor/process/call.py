"""`isolated_process`: one function call in a child process, for scripts and notebooks.

Owns the blocking form of the child, from start to reaping. It pickles the call and unpickles the
result, both the user's own; no part of the supervisor imports this. Invariant: when the block is
left the child is gone and reaped, and `result` has given a value or raised a `ChildFailed`.

No thread and no lock of its own: the child's pidfd and an eventfd decide, so neither a child that
dies half-way through its result nor a grandchild that keeps a descriptor can hang the parent.
"""

import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar

from supervisor.process import forked, ladder, outcome
from supervisor.process.command import Command, check_grace
from supervisor.process.failures import CallFacts, ChildTimedOut
from supervisor.process.launcher import Launcher
from supervisor.process.main_process import MAX_POLL_MS
from supervisor.process.reference import Call, refuse_unguarded_main, task_by_reference
from workers import protocol
from workers.call import Channel

T = TypeVar("T")

CALL_FILE = Path(protocol.__file__).with_name("call.py")
STOP_SIGNALS = (signal.SIGTERM,)
KILL_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the child is started and ended.

    `start`: "spawn" calls the function in a fresh interpreter, which must be able to import it;
    "fork" in a copy of this program; "auto" spawns whatever it can, and forks the rest.
    `grace_s`: seconds between SIGTERM and SIGKILL. `output`: file that receives the child's stdout
    and stderr, appended; its end becomes part of a failure. None inherits both.
    """

    start: Literal["auto", "spawn", "fork"] = "auto"
    grace_s: float = 5.0
    output: Path | str | None = None

    def __post_init__(self) -> None:
        if self.start not in ("auto", "spawn", "fork"):
            raise ValueError(f"start is 'auto', 'spawn' or 'fork', not {self.start!r}")
        check_grace(self.grace_s)


DEFAULTS = Options()


def isolated_process(
    function: Callable[..., T],
    /,
    *args: Any,  # noqa: ANN401 -- the function's own
    timeout: float | None = None,
    options: Options = DEFAULTS,
    **kwargs: Any,  # noqa: ANN401 -- the function's own
) -> "IsolatedProcess[T]":
    """Return the context manager that calls a function in a child.

    `with isolated_process(function, x, timeout=60) as child: value = child.result()`

    `timeout` is in seconds from the start of the child; None never ends it. For a function whose
    own parameters are called `timeout` or `options`, use functools.partial.
    Raises TypeError or ValueError for what cannot be started at all.
    """
    if not callable(function):
        raise TypeError(f"{function!r} is no function: pass the function, then its arguments")
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout is a number of seconds, 0 or more, or None: {timeout!r}")
    timeout_s = math.inf if timeout is None else timeout
    return IsolatedProcess(Call(function, args, kwargs), timeout_s, options)


class IsolatedProcess(Generic[T]):
    """A call in a child. Made by `isolated_process`; entered once, used by one thread."""

    def __init__(self, call: Call, timeout_s: float, options: Options) -> None:
        self._call = call
        self._timeout_s = timeout_s
        self._options = options
        self._output = Path(options.output).absolute() if options.output else None
        self._worker: ladder.Worker | None = None
        self._fds: dict[str, int] = {}
        self._outcome: outcome.Outcome | None = None

    def __enter__(self) -> Self:
        """Start the child. Raises SpawnFailed; RuntimeError, TypeError when it cannot be told."""
        if self._worker is not None:
            raise RuntimeError("this isolated_process(...) was entered before; make another")
        refuse_unguarded_main()
        self._deadline = time.monotonic() + self._timeout_s
        self._output_start = outcome.size_bytes(self._output)
        try:
            self._fds["result"] = os.memfd_create("result")
            self._fds["done"] = os.eventfd(0, os.EFD_CLOEXEC)
            self._worker = self._start()
        except BaseException:
            self._close_fds()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the child: wait for one that has answered, else SIGTERM; grace; SIGKILL."""
        worker = self._started()
        try:
            if self._outcome is not None:
                worker.main.wait(self._options.grace_s)
            self._stop(worker)
        finally:
            self._finish(worker)

    @property
    def pid(self) -> int:
        """The pid of the child."""
        return self._started().main.pid

    @property
    def running(self) -> bool:
        """Whether the child still runs."""
        return not self._started().main.exited()

    def result(self) -> T:
        """Wait for the call and return its value; the same again when asked again.

        Raises ChildRaised, ChildExited, ChildSignaled or ChildTimedOut; the last after the child
        was ended. A child that finished before anybody asked has not timed out.
        """
        if self._outcome is None:
            self._outcome = self._settle(self._started())
        if self._outcome.failure is not None:
            raise self._outcome.failure.with_traceback(None)
        value: T = self._outcome.value
        return value

    def _started(self) -> ladder.Worker:
        if self._worker is None:
            raise RuntimeError("there is no child yet: use `with isolated_process(...) as child:`")
        return self._worker

    def _start(self) -> ladder.Worker:
        channel = Channel(self._fds["result"], self._fds["done"])
        if self._options.start != "fork":
            try:
                task = task_by_reference(self._call)
            except TypeError:
                if self._options.start == "spawn":
                    raise
            else:
                return self._spawn(task, channel)
        return forked.start(forked.ForkedCall(self._call.bound(), channel, self._output))

    def _spawn(self, task: bytes, channel: Channel) -> ladder.Worker:
        self._fds["task"] = os.memfd_create("task")
        with open(self._fds["task"], "wb", closefd=False) as file:
            file.write(task)
        fds = (self._fds["task"], channel.result_fd, channel.done_fd)
        flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001 -- -O, -W, -X: as multiprocessing does
        argv = [sys.executable, *flags, str(CALL_FILE), *map(str, fds)]
        command = Command(argv=argv, output=self._output, inherit_fds=fds)
        return Launcher.start(fds).become_blocking(command)

    def _settle(self, worker: ladder.Worker) -> outcome.Outcome:
        if not self._fds:
            raise RuntimeError("the block was left before anybody asked for the result")
        answered = self._wait(worker)
        timed_out = not answered and not worker.main.exited()
        if timed_out:
            self._stop(worker)
        facts = self._facts(worker)
        if answered:
            return outcome.from_result(self._fds["result"], facts)
        if timed_out:
            return outcome.Outcome(failure=ChildTimedOut(facts, self._timeout_s))
        return outcome.from_status(worker.main.status, facts)

    def _wait(self, worker: ladder.Worker) -> bool:
        """Wait for answer, death or deadline; return whether there is an answer."""
        done = self._fds["done"]
        poll = select.poll()
        poll.register(done, select.POLLIN)
        poll.register(worker.main.pidfd, select.POLLIN)
        while True:
            left_ms = max(0.0, self._deadline - time.monotonic()) * 1000
            ready = poll.poll(min(left_ms, MAX_POLL_MS))
            # The answer comes before the death, but both may be here when we look.
            if ready or left_ms == 0.0:
                return any(fd == done for fd, _ in ready)

    def _facts(self, worker: ladder.Worker) -> CallFacts:
        text = outcome.tail(self._output, self._output_start)
        return CallFacts(self._call.name, worker.main.pid, text)

    def _stop(self, worker: ladder.Worker) -> None:
        ladder.drive(ladder.stop(worker, STOP_SIGNALS, self._options.grace_s), worker.main)
        ladder.drive(ladder.kill(worker, KILL_LIMIT_S), worker.main)

    def _finish(self, worker: ladder.Worker) -> None:
        """Do what is left of the ending, at once; a Ctrl-C meanwhile does not prevent it."""
        try:
            ladder.drive(ladder.kill(worker, KILL_LIMIT_S), worker.main)
        except KeyboardInterrupt:
            ladder.drive(ladder.kill(worker, KILL_LIMIT_S), worker.main)
            raise
        finally:
            worker.main.close()
            self._close_fds()

    def _close_fds(self) -> None:
        while self._fds:
            os.close(self._fds.popitem()[1])
