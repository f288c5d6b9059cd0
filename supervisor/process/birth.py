"""The moment in which a child comes to be: from the fork until somebody answers for it.

Owns the two dangers of that moment: Ctrl-C, which would leave a child nobody knows of, and a fork
in another thread, whose child would keep descriptors of this one. Invariant: `bear` returns a
worker or leaves no child behind.
"""

import os
import signal
import threading
from collections.abc import Callable

from supervisor.process import ladder
from supervisor.process.main_process import MainProcess
from supervisor.process.tree import ProcessGroup

DROP_LIMIT_S = 5.0

# A launcher tells "exec happened" by the end of a stream: a copy of its end of the socket, in a
# child that another thread forks meanwhile, would hide that.
_one_at_a_time = threading.Lock()


def _renew_lock() -> None:
    global _one_at_a_time  # noqa: PLW0603 -- a fork by somebody else may have copied it locked
    _one_at_a_time = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def bear(fork: Callable[[], int]) -> ladder.Worker:
    """Call `fork`, which returns the pid of a new session leader, and take charge of that.

    Signals are blocked meanwhile, in the child too: it has to unblock them.
    Raises what `fork` raises, and OSError when there is no descriptor to hold the child by.
    """
    worker = None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        try:
            with _one_at_a_time:
                pid = fork()
            worker = _adopt(pid)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # a Ctrl-C that waited is raised here
    except BaseException:
        if worker is not None:
            drop(worker)
        raise
    return worker


def drop(worker: ladder.Worker) -> None:
    """Kill and reap at once, blocking: for a process that has no memory worth a longer wait."""
    ladder.drive(ladder.kill(worker, DROP_LIMIT_S), worker.main)
    worker.main.close()


def _adopt(pid: int) -> ladder.Worker:
    try:
        main = MainProcess(pid)
    except BaseException:
        os.kill(pid, signal.SIGKILL)  # ours for certain: nobody has reaped it
        os.waitpid(pid, 0)
        raise
    return ladder.Worker(main, ProcessGroup(main))
