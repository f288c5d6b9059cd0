"""The moment in which a child comes to be: from the fork until somebody answers for it.

Owns the two dangers of that moment: Ctrl-C, which would leave a child nobody knows of, and a fork
in another thread, whose child would keep descriptors of this one. Invariant: `bear` returns a
worker or leaves no child behind.
"""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

from supervisor.process import ladder
from supervisor.process.main_process import MainProcess
from supervisor.process.tree import Sweep

DROP_LIMIT_S = 5.0

# A launcher tells "exec happened" by the end of a stream: a copy of its end of the socket, in a
# child that another thread forks meanwhile, would hide that.
_one_at_a_time = threading.Lock()


def _renew_lock() -> None:
    global _one_at_a_time  # noqa: PLW0603 -- a fork by somebody else may have copied it locked
    _one_at_a_time = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def bear(fork: Callable[[], int], mark: str = "") -> ladder.Worker:
    """Call `fork`, which returns the pid of a new session leader, and take charge of that.

    `mark` is what everything that it starts will inherit.

    Signals are blocked meanwhile, in the child too: it has to unblock them.
    Raises what `fork` raises, and OSError when there is no descriptor to hold the child by.
    """
    worker = None
    held = _HeldInterrupt()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        try:
            with _one_at_a_time:
                pid = fork()
            worker = _adopt(pid, mark)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            held.release()
    except BaseException:
        if worker is not None:
            drop(worker)
        raise
    return worker


class _HeldInterrupt:
    """Puts a Ctrl-C off, in the main thread, where it strikes.

    Blocking the signal is not enough: another thread takes it, and the main one is interrupted.
    """

    def __init__(self) -> None:
        self._struck: list[FrameType | None] = []
        self._handler: Callable[[int, FrameType | None], object] | None = None
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, lambda _, frame: self._struck.append(frame))
            self._handler = handler

    def release(self) -> None:
        """Give the signal back, and let one that came meanwhile have its effect."""
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
            if self._struck:
                self._handler(signal.SIGINT, self._struck[0])


def drop(worker: ladder.Worker) -> None:
    """Kill and reap at once, blocking: for a process that has no memory worth a longer wait."""
    ladder.drive(ladder.kill(worker, DROP_LIMIT_S), worker.main)
    worker.main.close()


def _adopt(pid: int, mark: str) -> ladder.Worker:
    try:
        main = MainProcess(pid)
    except BaseException:
        os.kill(pid, signal.SIGKILL)  # ours for certain: nobody has reaped it
        os.waitpid(pid, 0)
        raise
    return ladder.Worker(main, Sweep(main, mark), mark)
