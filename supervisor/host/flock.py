"""Who holds a flock(2), as the kernel lists it; asked without taking the lock.

Owns reading /proc/locks. Never opens the file, so it is in the way of nobody who wants to lock it.

The kernel lists who took a lock. A lock that children inherited lives longer than that process, and
is listed under a pid that is gone, or is somebody else's by now. So a listed pid counts only while
that process has the file open; else one that has it open is named, for that is who inherited it.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from supervisor.host import identity

UNKNOWN: Final = 0
_LOCKS: Final = Path("/proc/locks")
_NOBODY: Final = 0  # what is listed for a process of another pid namespace; -1 for none at all
_FIRST_NAMESPACE: Final = 0xEFFFFFFC  # linux/proc_ns.h: PROC_PID_INIT_INO


def holder(path: Path) -> int | None:
    """A process that holds the flock on a file; None if nobody does, or there is no such file.

    UNKNOWN (0): it is held, and by whom cannot be seen from here. In a pid namespace the kernel
    lists no lock whose taker is outside of it, or is dead. So there whoever has the file open is
    taken for its holder; that is right for a lock file, which nobody has open but to hold it, save
    for the moment of trying. A holder outside of the namespace cannot be seen at all: None.

    Raises:
        OSError: the file cannot be looked at, for another reason than that it is not there.
    """
    try:
        wanted = path.stat()
    except FileNotFoundError:
        return None
    sure, perhaps = _listed(wanted)
    hidden = []
    for pid in (*sure, *perhaps):
        has_it_open = pid > _NOBODY and _has_open(pid, wanted)
        if has_it_open:
            return pid
        if has_it_open is None and pid in sure:  # another user's, who may not be looked into
            hidden.append(pid)
    if sure or perhaps or _is_inner_namespace():
        inherited = identity.holders(path)
        if inherited:
            return inherited[0]
    if hidden:
        return hidden[0]
    return UNKNOWN if sure else None


def _listed(wanted: os.stat_result) -> tuple[list[int], list[int]]:
    """Pids listed for flocks on this file; and on one of the same number of whatever file system.

    Btrfs and overlays tell stat(2) another device than the one that they lock by.
    """
    device = f"{os.major(wanted.st_dev):02x}:{os.minor(wanted.st_dev):02x}"
    sure: list[int] = []
    perhaps: list[int] = []
    for pid, where, inode in _flocks():
        if inode == wanted.st_ino:
            (sure if where == device else perhaps).append(pid)
    return sure, perhaps


def _flocks() -> Iterator[tuple[int, str, int]]:
    """Give pid, device and inode of each flock that is held, not of those that are waited for."""
    with suppress(OSError), _LOCKS.open(encoding="ascii", errors="replace") as lines:
        for line in lines:  # 1: FLOCK  ADVISORY  WRITE 27049 fe:00:2146455 0 EOF
            fields = line.split()
            if len(fields) > 5 and fields[1] == "FLOCK":  # noqa: PLR2004 - as far as it is read
                with suppress(ValueError):
                    device, _, inode = fields[5].rpartition(":")
                    yield int(fields[4]), device, int(inode)


def _has_open(pid: int, wanted: os.stat_result) -> bool | None:
    """Whether a process has the file open; None where that may not be seen."""
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                with suppress(OSError):
                    if os.path.samestat(entry.stat(), wanted):
                        return True
    except PermissionError:
        return None
    except OSError:  # it is gone
        return False
    return False


def _is_inner_namespace() -> bool:
    with suppress(OSError):
        return Path("/proc/self/ns/pid").stat().st_ino != _FIRST_NAMESPACE
    return True
