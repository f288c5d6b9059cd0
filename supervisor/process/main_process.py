"""One direct child of this process, held by a pidfd until it is reaped.

Owns the pidfd and the right to reap. Never waits for any other pid, never signals by number.
Invariant: until `reap` the kernel keeps pid and process group id reserved for this child, even when
it is a zombie; that is what makes signalling its group safe.
"""

import os
import select
import signal
import time

from supervisor.host import processes
from supervisor.process.command import ExitStatus

# A Ctrl-C that comes between Python's last look for signals and the system call interrupts nothing:
# it is heard when that returns.
MAX_POLL_MS = 1000

# The pids of those that this process answers for: what else comes to it is an orphan (orphans.py).
unreaped: set[int] = set()


class MainProcess:
    """The main process of a worker. Raises OSError when there is no descriptor left for it."""

    __slots__ = ("pid", "pidfd", "reaped", "start_ticks", "status")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.status: ExitStatus | None = None
        self.reaped = False
        try:
            self.start_ticks = start_ticks(pid)
        except BaseException:
            os.close(self.pidfd)
            raise
        unreaped.add(pid)

    def exited(self) -> bool:
        """Return whether it has ended; never blocks, never reaps."""
        if self.status is None:
            self.status = self._waitid(os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return self.status is not None

    def signal(self, number: int) -> None:
        """Send a signal to this very process; nothing happens when it has ended."""
        if not self.exited():
            signal.pidfd_send_signal(self.pidfd, number)

    def wait(self, timeout_s: float) -> bool:
        """Block until it has ended, at most this long; return whether it has."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        deadline = time.monotonic() + timeout_s
        while True:
            left_ms = max(0.0, deadline - time.monotonic()) * 1000
            if poll.poll(min(left_ms, MAX_POLL_MS)) or left_ms == 0.0:
                return self.exited()

    def reap(self) -> None:
        """Collect a process that has ended, and give its pid back to the kernel."""
        if not self.reaped:
            self._waitid(os.WEXITED | os.WNOHANG)
            self.reaped = True
            unreaped.discard(self.pid)

    def close(self) -> None:
        """Close the pidfd, once."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def _waitid(self, options: int) -> ExitStatus | None:
        try:
            result = os.waitid(os.P_PIDFD, self.pidfd, options)
        except ChildProcessError:
            # Somebody else reaped it, or SIGCHLD is ignored: gone, with its status, and its pid and
            # group id may be anybody's from now on.
            self.reaped = True
            unreaped.discard(self.pid)
            return ExitStatus(None, None)
        if result is None:
            return None
        if result.si_code == os.CLD_EXITED:
            return ExitStatus(result.si_status, None)
        return ExitStatus(None, result.si_status, core_dumped=result.si_code == os.CLD_DUMPED)


def start_ticks(pid: int) -> int:
    """Return when the process started, in clock ticks since boot."""
    return processes.stat(pid).start_ticks
