"""Ending the members of a cgroup where one write does not do it.

Owns killing member by member, and waking what the version 1 freezer holds. Never signals a process
that is not proven to be a member. Invariant: membership is looked at again once a pidfd pins it.
"""

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path

from supervisor.host import cgroup_files as files

_AT_ONCE = 256  # pidfds held at a time: a process may have 1024 descriptors
_HELD = {"FROZEN", "FREEZING"}
_ROUNDS = 64  # a tree that still grows after that grows faster than it can be killed


def one_by_one(listed: Callable[[], set[int]]) -> None:
    """Send SIGKILL to every member, and to those that are born meanwhile."""
    sent: set[int] = set()
    for _ in range(_ROUNDS):
        new = listed() - sent
        if not new:
            return
        left = iter(new)
        while some := set(islice(left, _AT_ONCE)):
            _kill(some, listed)
        sent |= new


def _kill(pids: set[int], listed: Callable[[], set[int]]) -> None:
    with ExitStack() as stack:
        pinned = {}
        for pid in pids:
            with suppress(OSError):  # gone meanwhile
                pinned[pid] = os.pidfd_open(pid)
                stack.callback(os.close, pinned[pid])
        for pid in listed() & pinned.keys():
            with suppress(OSError):  # gone, or it has changed its user: then it shows as a survivor
                signal.pidfd_send_signal(pinned[pid], signal.SIGKILL)


def thaw(freezer: Path, members: set[int]) -> None:
    """Take members out of frozen cgroups of version 1: until then SIGKILL does nothing to them.

    They are moved and nobody else is woken: a cgroup may hold processes that are not ours.
    """
    for pid in frozen(freezer, members):
        with suppress(OSError):  # gone, or not ours to move: then it shows as a survivor
            files.write(freezer / "cgroup.procs", str(pid))


def frozen(freezer: Path, members: set[int]) -> set[int]:
    """Return those members that the version 1 freezer holds."""
    held: set[int] = set()
    for folder in files.folders(freezer) if members else ():
        if files.content(folder / "freezer.state").strip() in _HELD:
            listed = files.content(folder / "cgroup.procs").split()
            held |= members.intersection(map(int, listed))
    return held
