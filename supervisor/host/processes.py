"""Processes of this host as /proc shows them.

Owns reading /proc for what a process is: parents, groups, state, counters, environment. Never
signals anybody. Invariant: a process is named by pid and start together, because pids come back.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

_PROC = "/proc"
_ENDED = frozenset("ZX")  # proc_pid_stat(5): zombie, dead
_CHUNK_BYTES = 65_536
_GONE = (FileNotFoundError, ProcessLookupError)


class ProcessId(NamedTuple):
    """A process for good: the kernel reuses a pid, but not with the same start.

    `start_ticks` is 0 where the kernel hides the start from this user (`hidepid`).
    """

    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class Stat:
    """One line of /proc/PID/stat, as far as anybody here wants it; proc_pid_stat(5).

    `state` is the kernel's letter. The faults and `cpu_ticks` (user and system) are the process's
    own since it began, without its children's.
    """

    pid: int
    ppid: int
    group: int
    session: int
    state: str
    threads: int
    start_ticks: int
    minor_faults: int
    major_faults: int
    cpu_ticks: int

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more.

        A main thread may end before its process does: then it is a zombie with other threads left.
        """
        return self.state in _ENDED and self.threads <= 1


def stat(pid: int) -> Stat:
    """Read what a process is. Raises ProcessLookupError when it is gone."""
    try:
        line = _content(f"{_PROC}/{pid}/stat")
    except FileNotFoundError as error:
        raise ProcessLookupError(error.errno, f"there is no process {pid}") from error
    # The second field, the name, may hold spaces and parentheses.
    fields = line[line.rindex(b")") + 2 :].split()
    return Stat(
        pid=pid,
        ppid=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        state=fields[0].decode("ascii"),
        threads=int(fields[17]),
        start_ticks=int(fields[19]),
        minor_faults=int(fields[7]),
        major_faults=int(fields[9]),
        cpu_ticks=int(fields[11]) + int(fields[12]),
    )


def snapshot() -> dict[int, Stat]:
    """Return every process that can be read, zombies included, by pid.

    The processes are read one after the other; one that is born meanwhile may be missing.
    """
    found = {}
    for pid in pids():
        with suppress(OSError):  # gone meanwhile, or hidden from this user
            found[pid] = stat(pid)
    return found


def pids() -> Iterator[int]:
    """Yield the pid of every process of this host that may be seen."""
    with os.scandir(_PROC) as entries:
        for entry in entries:
            if entry.name.isdigit():
                yield int(entry.name)


def descendants(everybody: Mapping[int, Stat], roots: Iterable[int]) -> set[int]:
    """Return whoever descends from the roots in a snapshot, without the roots."""
    by_parent = defaultdict(list)
    for one in everybody.values():
        by_parent[one.ppid].append(one.pid)
    origin = set(roots)
    found: set[int] = set()
    parents = list(origin)
    while parents:
        for pid in by_parent.get(parents.pop(), ()):
            if pid not in found and pid not in origin:
                found.add(pid)
                parents.append(pid)
    return found


def living(pid: int) -> ProcessId | None:
    """Return the identity of a process that has not ended, None when it has."""
    try:
        seen = stat(pid)
    except ProcessLookupError:
        return None
    except PermissionError:
        return ProcessId(pid, 0)  # hidden, which only a process that is there can be
    return None if seen.ended else ProcessId(pid, seen.start_ticks)


def still_living(process: ProcessId) -> bool:
    """Return whether this very process lives; another one with its pid does not count."""
    return living(process.pid) == process


def variable(pid: int, name: bytes) -> bytes | None:
    """Return a variable of the environment with which a process was started.

    None when it has none of that name, and when this user may not look.
    """
    try:
        environment = _content(f"{_PROC}/{pid}/environ")
    except OSError:
        return None
    marker = name + b"="
    for entry in environment.split(b"\0"):
        if entry.startswith(marker):
            return entry[len(marker) :]
    return None


def children(pid: int) -> list[int]:
    """Return the direct children of a process, those not reaped yet included.

    The kernel may leave one out while another of them ends; whoever must find all asks again.
    """
    try:
        with os.scandir(f"{_PROC}/{pid}/task") as threads:
            listed = [_of_thread(thread.path) for thread in threads]
    except _GONE:
        return []
    except PermissionError:
        listed = [None]
    if None in listed:  # a kernel built without CONFIG_PROC_CHILDREN
        return [one.pid for one in snapshot().values() if one.ppid == pid]
    return [child for some in listed if some is not None for child in some]


def _of_thread(task: str) -> list[int] | None:
    try:
        return [int(child) for child in _content(f"{task}/children").split()]
    except _GONE:
        # A thread may end meanwhile; without the file, the kernel does not tell at all.
        return None if os.path.exists(task) else []  # noqa: PTH110 -- paths here are plain strings


def _content(path: str) -> bytes:
    # Plain descriptors: a snapshot opens hundreds of these, and Path and io cost more than /proc.
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(file, _CHUNK_BYTES):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(file)
