"""A child by fork, for functions that no fresh interpreter could find: notebook cells, lambdas.

Owns what has to be undone in a copy of a living program. Never forks a program that has initialised
CUDA. Invariant: the forked child never returns into its caller's code; it ends here.
"""

import ctypes
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from supervisor.process import ladder, marks
from supervisor.process.birth import bear
from supervisor.process.command import SpawnFailed, SpawnFailure
from workers.call import Channel, answer
from workers.protocol import ENV_TREE

PR_SET_PDEATHSIG = 1  # linux/prctl.h

# Loaded before any fork: a thread that holds an import lock does not exist in the child.
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class ForkedCall:
    """What the child does."""

    call: Callable[[], object]
    channel: Channel
    output: Path | None


def refuse_cuda() -> None:
    """Raise RuntimeError when this program has initialised CUDA: a fork could not use it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        raise RuntimeError(
            "this function cannot be found by a fresh interpreter (it is a lambda, a closure or a "
            "notebook cell), and a fork is no way out because CUDA is initialised in this program. "
            "Move the function to a module (a .py file) and import it, or call this before "
            "anything touches the GPU"
        )


def start(task: ForkedCall) -> ladder.Worker:
    """Start the call in a forked child. Raises SpawnFailed; RuntimeError (see `refuse_cuda`)."""
    refuse_cuda()
    output_fd = None if task.output is None else _open(task.output)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()  # or the child would write the parent's lines again
    parent_pid = os.getpid()
    mark = marks.new_mark()
    chain = marks.chain_with(mark)

    def fork() -> int:
        pid = os.fork()
        if pid == 0:
            os.environ[ENV_TREE] = chain  # for what it executes: its own was fixed at our start
            _live(task, output_fd, parent_pid)
        return pid

    try:
        return bear(fork, mark)
    except OSError as error:
        raise SpawnFailed(SpawnFailure("fork", error.errno or 0, "", ["a call"])) from error
    finally:
        if output_fd is not None:
            os.close(output_fd)


def _open(output: Path) -> int:
    """Open the output file before the fork, where an error can still be told."""
    try:
        return os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        failure = SpawnFailure("output", error.errno or 0, str(output), ["a call"])
        raise SpawnFailed(failure) from error


def _live(task: ForkedCall, output_fd: int | None, parent_pid: int) -> NoReturn:
    code = 1
    try:
        _detach(parent_pid)
        _redirect(output_fd)
        answer(task.call, task.channel)
        code = 0
    except SystemExit as leave:
        code = _exit_code(leave)
    except BaseException:  # noqa: BLE001 -- the last frame of this process: print, and end
        sys.excepthook(*sys.exc_info())
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):  # closed, broken or None
                stream.flush()
        os._exit(code)


def _detach(parent_pid: int) -> None:
    os.setsid()
    _libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)
    if threading.current_thread() is threading.main_thread():
        signal.set_wakeup_fd(-1)
        for number in signal.valid_signals():
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    faulthandler.enable(file=2)


def _redirect(output_fd: int | None) -> None:
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if output_fd is not None:
        os.dup2(output_fd, 1)
        os.dup2(output_fd, 2)
        # A notebook's sys.stdout writes elsewhere than to descriptor 1; here the file is meant.
        sys.stdout = os.fdopen(1, "w", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


def _exit_code(leave: SystemExit) -> int:
    """Return what the interpreter makes of sys.exit's argument."""
    if leave.code is None or isinstance(leave.code, int):
        return (leave.code or 0) & 0xFF
    print(leave.code, file=sys.stderr)  # noqa: T201 -- what the interpreter does
    return 1
