"""Ends a worker's tree when its runner died: what a launcher does until it is needed as a worker.

Owns the end of the tree that the dead parent had named. Never touches anybody without proof: a
cgroup of the tree, its mark, its session, or a parent that has one of these. Invariant: it gives up
after LIMIT_S seconds, and leaves as soon as nobody of the tree is left.

Loaded by launch.py, which has no path to this package, hence with no import from it.
"""

import os
import signal
import time

TYPE_CHECKING = False  # typing costs more than all the rest
if TYPE_CHECKING:
    from collections.abc import Iterator

ENV_TREE = b"SUPERVISE_TREE="
LIMIT_S = 5.0
PAUSE_S = 0.005
ROUNDS = 200
EXEC_S = 0.2  # an exec takes that long only where nobody gets to run
ENV_END = 48  # proc_pid_stat(5): field 51, counted from the one behind the name
ENDED = (b"Z", b"X")
BATCH = 256  # descriptors held at once
CHUNK_BYTES = 1 << 16


class Stat:
    """What /proc/PID/stat says, as far as it matters here."""

    __slots__ = ("group", "pid", "ppid", "session", "start_ticks")

    def __init__(self, pid: int, fields: "list[bytes]") -> None:
        self.pid = pid
        self.ppid = int(fields[1])
        self.group = int(fields[2])
        self.session = int(fields[3])
        self.start_ticks = int(fields[19])


def end(order: "dict[bytes, list[bytes]]") -> None:
    """End the tree that a guard message names, if it names one."""
    mark = order[b"guard"][0]
    if mark:
        main = order[b"main"] or [b"0 0"]
        Tree(mark, *map(int, main[0].split())).end(order[b"cgroup"])


class Tree:
    """A worker's tree, seen by somebody who is not its parent."""

    def __init__(self, mark: bytes, main_pid: int, main_start_ticks: int) -> None:
        self.mark = mark
        self.main_pid = main_pid
        self.main_start_ticks = main_start_ticks

    def end(self, cgroups: "list[bytes]") -> None:
        """Kill everybody, again and again until nobody is left, within LIMIT_S."""
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            # Those who fled from the cgroup first: their parents may prove that they belong.
            left = self.strike()
            for entry in cgroups:
                left = kill_cgroup(entry) or left
            if not left:
                return
            time.sleep(PAUSE_S)

    def strike(self) -> bool:
        """Stop whoever belongs until nobody new is born, then kill; whether there was anybody."""
        held = {}  # type: dict[int, Stat]
        groups = set()  # type: set[int]
        for one in self.members(held):
            if one.group not in groups and self.owns(one.group, held):
                groups.add(one.group)
                signal_group(one.group, signal.SIGSTOP)  # no fork escapes this
            else:
                send(one, signal.SIGSTOP)
        for group in groups:  # taken, for the stopped ones are in it
            signal_group(group, signal.SIGKILL)
        for one in held.values():
            send(one, signal.SIGKILL)
        return bool(held)

    def members(self, held: "dict[int, Stat]") -> "Iterator[Stat]":
        """Yield who belongs, at once, and add it; return when nobody was born meanwhile."""
        others = []  # type: list[Stat]
        passed = {os.getpid()}
        for _ in range(ROUNDS):
            fresh = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 -- pathlib is slow
            fresh = [pid for pid in fresh if pid not in passed]
            if not fresh:
                return
            for pid in fresh:
                passed.add(pid)
                one = stat(pid)
                if one is not None and self.belongs(one):
                    held[pid] = one
                    yield one
                elif one is not None:
                    others.append(one)
            yield from descendants(others, held)

    def owns(self, group: int, held: "dict[int, Stat]") -> bool:
        """Tell whether a group in which a member was just seen is all of the tree."""
        if group <= 1 or group == os.getpgrp():  # 1 would be everybody, to kill(2)
            return False
        # Its leader is gone, or is itself of the tree; else the group is somebody else's.
        return group in held or group == self.main_pid or stat(group) is None

    def belongs(self, one: "Stat") -> bool:
        """Tell whether this process is of the tree by itself, whatever its parent is."""
        if one.start_ticks < self.main_start_ticks:
            return False
        if one.pid == self.main_pid:
            return one.start_ticks == self.main_start_ticks
        # While the parent lived it did not reap the main process, so the number was not free.
        if self.main_pid and self.main_pid in (one.group, one.session):
            return True
        return self.mark in chain(one).split(b"/")


def descendants(others: "list[Stat]", held: "dict[int, Stat]") -> "Iterator[Stat]":
    """Yield children of those held, and theirs, and add them."""
    found = True
    while found:
        found = False
        for one in others:
            if one.ppid in held and one.pid not in held:
                found = True
                held[one.pid] = one
                yield one


def stat(pid: int) -> "Stat | None":
    """Return what a process is; None when it has ended."""
    try:
        fields = read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except OSError:
        return None
    if fields[0] in ENDED and int(fields[17]) <= 1:
        return None
    return Stat(pid, fields)


def chain(one: "Stat") -> bytes:
    """Return the marks that a process inherited; nothing when this user may not look."""
    try:
        for variable in environment(one).split(b"\0"):
            if variable.startswith(ENV_TREE):
                return variable[len(ENV_TREE) :]
    except OSError:
        return b""
    return b""


def environment(one: "Stat") -> bytes:
    """Return what a process was started with. In the midst of an exec it has nothing to show."""
    if one.session == 0:  # the kernel's own threads
        return b""
    file = f"/proc/{one.pid}/environ"
    deadline = time.monotonic() + EXEC_S
    content = read(file)
    while not content:
        fields = read(f"/proc/{one.pid}/stat").rpartition(b")")[2].split()
        executes = fields[0] not in ENDED and fields[ENV_END] == b"0"
        if not executes or time.monotonic() > deadline:
            return read(file)  # the exec may have been over in between
        os.sched_yield()
        content = read(file)
    return content


def send(process: "Stat", number: int) -> None:
    """Send a signal to this very process."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError:
        return
    try:
        now = stat(process.pid)
        if now is not None and now.start_ticks == process.start_ticks:
            signal.pidfd_send_signal(pidfd, number)
    except (ProcessLookupError, PermissionError):
        return
    finally:
        os.close(pidfd)


def signal_group(group: int, number: int) -> None:
    """Send a signal to a whole group."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def kill_cgroup(entry: bytes) -> bool:
    """Kill who is in the cgroup of this cgroup.procs file; return whether there was anybody."""
    folder = os.path.dirname(entry)  # noqa: PTH120 -- bytes
    try:
        members = cgroup_members(entry)
    except OSError:  # removed
        return False
    kill_at_once(folder + b"/cgroup.kill")
    for first in range(0, len(members), BATCH):
        kill_members(entry, members[first : first + BATCH])
    return bool(members)


def kill_at_once(lever: bytes) -> None:
    """Kill everybody with the one write that cgroup v2 has for it; nothing happens elsewhere."""
    try:
        fd = os.open(lever, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.write(fd, b"1")
    except OSError:
        return
    finally:
        os.close(fd)


def kill_members(entry: bytes, pids: "list[int]") -> None:
    """Kill those of these processes that are still in the cgroup once nobody can replace them."""
    pinned = {}
    for pid in pids:
        try:
            pinned[pid] = os.pidfd_open(pid)
        except OSError:
            continue
    try:
        for pid in set(cgroup_members(entry)).intersection(pinned):
            signal.pidfd_send_signal(pinned[pid], signal.SIGKILL)
    except OSError:
        return
    finally:
        for pidfd in pinned.values():
            os.close(pidfd)


def cgroup_members(entry: bytes) -> "list[int]":
    """Return the pids in a cgroup.procs file; 0 stands for one in a pid namespace out of sight."""
    return [int(pid) for pid in read(entry).split() if pid != b"0"]


def read(path: "str | bytes") -> bytes:
    """Return what a file of the kernel holds."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = chunk = os.read(fd, CHUNK_BYTES)
        while chunk:
            chunk = os.read(fd, CHUNK_BYTES)
            content += chunk
        return content
    finally:
        os.close(fd)
