"""Processes that come to this one when their own parent dies: it is their subreaper.

Owns becoming one, and collecting what ended. Never waits for just any child: that would take an
exit status from whoever waits for it. Invariant: a child that this process started itself is never
taken for an orphan, as long as it shares our session, is a `MainProcess`, or inherited our
environment.
"""

import ctypes
import os
import time
from collections.abc import Collection, Iterator
from contextlib import suppress

from supervisor.host import processes
from supervisor.host.processes import ProcessId, Stat
from supervisor.process import marks
from supervisor.process.main_process import unreaped
from workers.protocol import ENV_TREE

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
PATIENCE_S = 2.0

_adopting = False


def become_subreaper() -> None:
    """Have every orphan of a worker's tree come to this process, however it fled. Raises OSError.

    For a process of ours alone: it changes who the parent of an orphan is, for the whole process.
    It also marks our own environment, so that what we start ourselves can be told from orphans.
    """
    global _adopting  # noqa: PLW0603 -- it is a property of the process
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot become a subreaper: {os.strerror(number)}")
    if not _adopting:
        os.environ[ENV_TREE] = marks.chain_with(marks.new_mark())
        _adopting = True


def are_adopted() -> bool:
    """Return whether this process is a subreaper, by `become_subreaper`."""
    return _adopting


def is_adopted(one: Stat, chain: str | None) -> bool:
    """Return whether this is a living orphan without a mark that would tell whose it is."""
    return _adopting and _is_foreign_child(one) and chain is None


def collect(members: Collection[ProcessId]) -> None:
    """Reap those of a tree's members that came to us and ended, and all that are surely orphans."""
    for one in _ended_orphans():
        if _is_surely_adopted(one) or ProcessId(one.pid, one.start_ticks) in members:
            _reap(one.pid)


class Orphans:
    """Reaps what ended among the orphans, while their tree lives on."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[ProcessId, float] = {}

    def reap(self, now: float | None = None) -> list[int]:
        """Reap orphans that ended; return their pids. To be repeated.

        One that could be a child of ours, in a session of its own, is left for two seconds to
        whoever started it and is about to ask how it ended. `now` is a monotonic instant.
        """
        now = time.monotonic() if now is None else now
        waiting: dict[ProcessId, float] = {}
        reaped = []
        for one in _ended_orphans():
            identity = ProcessId(one.pid, one.start_ticks)
            since = self._seen.get(identity, now)
            if not _is_surely_adopted(one) and now - since < PATIENCE_S:
                waiting[identity] = since
            elif _reap(one.pid):
                reaped.append(one.pid)
        self._seen = waiting
        return reaped


def _ended_orphans() -> Iterator[Stat]:
    for pid in processes.children(os.getpid()) if _adopting else ():
        with suppress(OSError):
            one = processes.stat(pid)
            if one.ended and _is_foreign_child(one):
                yield one


def _is_surely_adopted(one: Stat) -> bool:
    """Tell whether it cannot be a child of ours: that is in our session, or leads its own."""
    return one.session != one.pid


def _is_foreign_child(one: Stat) -> bool:
    ours = one.pid in unreaped or one.session == os.getsid(0)
    return one.ppid == os.getpid() and not ours


def _reap(pid: int) -> bool:
    with suppress(ChildProcessError):
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is not None
    return False
