"""The processes of a worker, and how to end them all.

Owns the seam behind which killing may grow stronger (a cgroup, a sweep of descendants). Never
signals a process that is not proven to belong to the worker. Invariant: the group is addressed only
while its unreaped leader holds its number.
"""

import os
import signal
from contextlib import suppress
from typing import NamedTuple, Protocol

from supervisor.process.main_process import MainProcess, stat_fields

ENDED = frozenset("ZX")  # proc_pid_stat(5): zombie, dead


class ProcessId(NamedTuple):
    """A process for good: the kernel reuses a pid, but not with the same start."""

    pid: int
    start_ticks: int


class Tree(Protocol):
    """Everything a worker consists of."""

    def signal(self, number: int) -> None:
        """Send a signal to every member."""

    def kill(self) -> None:
        """Send SIGKILL to every member; may be repeated."""

    def members(self) -> list[ProcessId]:
        """Return the members that live, the main process included."""


class ProcessGroup:
    """The process group led by the main process. A child that made its own session has left it."""

    __slots__ = ("_leader",)

    def __init__(self, leader: MainProcess) -> None:
        self._leader = leader

    def signal(self, number: int) -> None:
        """Send a signal to the group, unless its leader was reaped and the number is free."""
        if self._leader.reaped:
            return
        # No permission: every member changed its user. They show up as survivors.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._leader.pid, number)

    def kill(self) -> None:
        """Send SIGKILL to the group; stopped processes die of it too."""
        self.signal(signal.SIGKILL)
        # A child of a fork has no group of its own yet when it is killed before it made one.
        with suppress(PermissionError):
            self._leader.signal(signal.SIGKILL)

    def members(self) -> list[ProcessId]:
        """Return who lives in the group; nobody once the leader is reaped."""
        if self._leader.reaped:
            return []
        with os.scandir("/proc") as entries:
            pids = [int(entry.name) for entry in entries if entry.name.isdigit()]
        found = (_member(pid, self._leader.pid) for pid in pids)
        return [member for member in found if member is not None]


def _member(pid: int, group: int) -> ProcessId | None:
    with suppress(ProcessLookupError, FileNotFoundError):
        # The call costs a tenth of reading the file, and most processes end here.
        if os.getpgid(pid) == group:
            return _living(pid)
    return None


def _living(pid: int) -> ProcessId | None:
    fields = stat_fields(pid)
    # A main thread may end before its process does: then it is a zombie with other threads left.
    ended = fields[0] in ENDED and int(fields[17]) <= 1
    return None if ended else ProcessId(pid, int(fields[19]))


def still_living(process: ProcessId) -> bool:
    """Return whether this very process lives; another one with its pid does not count."""
    with suppress(ProcessLookupError, FileNotFoundError):
        return _living(process.pid) == process
    return False
