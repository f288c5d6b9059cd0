"""The processes of a worker, and how to end them all.

Owns finding them: by cgroup where there is one, else by descent, session, inherited mark, and by
having come to us as orphans. Never signals a process that is not proven to belong to the worker.
Invariant: a process that was once seen to belong is remembered until it has ended, whatever it does
to its parents, session or name.

A sweep is a race against processes that fork. It stops everybody first, until a look finds nobody
new, and only then kills: nobody loses the parent that proves where it belongs. Who is born
meanwhile is looked for at once, without looking at all others again. Some live for less than a look
takes, and their heirs too: one of them needs to be seen once, for its group is stopped at one blow.
A group is signalled by its number, which is taken as long as it has members: they were seen an
instant before the first signal, and stand still at the second.
"""

import os
import signal
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Protocol

from supervisor.host import processes
from supervisor.host.processes import ProcessId, Stat, still_living
from supervisor.process import marks, orphans
from supervisor.process.command import Leaf
from supervisor.process.main_process import MainProcess

ROUNDS = 200  # of looking for those born meanwhile: some 0.1 ms each


class Tree(Protocol):
    """Everything a worker consists of."""

    def signal(self, number: int) -> None:
        """Send a signal to every member."""

    def kill(self) -> Collection[ProcessId]:
        """Send SIGKILL to every member; may be repeated.

        Returns to whom, and who of the tree had ended already and is to be reaped.
        """

    def members(self) -> list[ProcessId]:
        """Look, and return the members that live, the main process included."""

    def left(self) -> list[ProcessId]:
        """Return who of those seen before still lives; look only when there is none."""


class Sweep:
    """A tree found by looking at every process of the host."""

    __slots__ = ("_main", "_mark", "_seen", "ended")

    def __init__(self, main: MainProcess, mark: str = "") -> None:
        self._main = main
        self._mark = mark
        self._seen: set[ProcessId] = set()
        self.ended: set[ProcessId] = set()  # seen, but nobody had reaped them

    def signal(self, number: int) -> None:
        """Send a signal to every member."""
        for member in self.members():
            send(member, number)

    def kill(self) -> Collection[ProcessId]:
        """Stop everybody, then kill everybody; stopped processes die of it too."""
        held: set[ProcessId] = set()
        groups = set() if self._main.reaped else {self._main.pid}
        for group in groups:
            _signal_group(group, signal.SIGSTOP)
        for one in self._look(held):
            if one.group in groups or not self._owns(one.group):
                send(_identity(one), signal.SIGSTOP)
            else:
                groups.add(one.group)
                _signal_group(one.group, signal.SIGSTOP)
        for group in groups:
            _signal_group(group, signal.SIGKILL)
        # A child of a fork has no group of its own yet when it is killed before it made one.
        with suppress(PermissionError):
            self._main.signal(signal.SIGKILL)
        for member in held:  # one may have changed its group just before it was stopped
            send(member, signal.SIGKILL)
        return held | self.ended

    def members(self) -> list[ProcessId]:
        """Look at all processes; some 10 µs for each on the host."""
        return [_identity(one) for one in self._look(set())]

    def left(self) -> list[ProcessId]:
        """Return who of those seen before still lives; look only when there is none."""
        self._seen = {member for member in self._seen if still_living(member)}
        return list(self._seen) or self.members()

    def seen(self) -> list[ProcessId]:
        """Return who of those seen before still lives, without a look."""
        return [member for member in self._seen if still_living(member)]

    def _look(self, found: set[ProcessId]) -> Iterator[Stat]:
        """Yield each member at once, and add it; return when nobody was born meanwhile."""
        examined: dict[int, Stat] = {}
        passed = {os.getpid()}
        for _ in range(ROUNDS):
            fresh = [pid for pid in processes.pids() if pid not in passed]
            if not fresh:
                return
            for pid in fresh:
                passed.add(pid)
                with suppress(OSError):  # gone meanwhile, or hidden from this user
                    one = examined[pid] = processes.stat(pid)
                    if not one.ended and self._belongs(one):
                        yield self._remember(one, found)
            yield from self._descendants(examined, found)

    def _descendants(self, examined: dict[int, Stat], found: set[ProcessId]) -> Iterator[Stat]:
        """Yield those who belong by their parent alone."""
        roots = {member.pid for member in self._seen if _is_same(examined, member)}
        for pid in processes.descendants(examined, roots):
            one = examined[pid]
            if one.ended:
                self.ended.add(_identity(one))
            elif _identity(one) not in found:
                yield self._remember(one, found)

    def _remember(self, one: Stat, found: set[ProcessId]) -> Stat:
        found.add(_identity(one))
        self._seen.add(_identity(one))
        return one

    def _belongs(self, one: Stat) -> bool:
        """Tell whether a process is of the tree by itself, whatever its parent is."""
        main = self._main
        if one.start_ticks < main.start_ticks:
            return False
        if _identity(one) in self._seen:
            return True
        if one.pid == main.pid:
            return one.start_ticks == main.start_ticks
        # Until its leader is reaped, nobody else can have its number, nor a group or session of it.
        if not main.reaped and main.pid in (one.group, one.session):
            return True
        chain = marks.chain_of(one.pid)
        if chain and self._mark in chain.split(marks.SEPARATOR):
            return True
        return orphans.is_adopted(one, chain)

    def _owns(self, group: int) -> bool:
        """Tell whether a group that a member was just seen in is all of the tree.

        It was made in the tree, for a group never leaves its session, unless its leader, whom only
        the tree can have outlived, proves otherwise.
        """
        if group in (os.getpgrp(), os.getsid(0), 0):
            return False
        with suppress(OSError):
            leader = processes.stat(group)
            return leader.ended or _identity(leader) in self._seen
        return True


class CgroupTree:
    """A tree in a cgroup of its own. Root can leave a cgroup: a sweep finds those who did."""

    __slots__ = ("_leaf", "_main", "_sweep")

    def __init__(self, leaf: Leaf, main: MainProcess, sweep: Sweep) -> None:
        self._leaf = leaf
        self._main = main
        self._sweep = sweep

    def signal(self, number: int) -> None:
        """Send a signal to every member."""
        for member in self.members():
            send(member, number)

    def kill(self) -> Collection[ProcessId]:
        """Kill the cgroup at one blow, and whoever is known not to be in it."""
        if not orphans.are_adopted():
            # Once a parent is dead, its child does not show any more where it came from.
            self._sweep.members()
        self._leaf.kill()
        self._main.signal(signal.SIGKILL)  # it may not have entered yet
        inside = set(self._leaf.members())
        if inside.issuperset(self._sweep.seen()) and inside:
            return inside
        return inside.union(self._sweep.kill())

    def members(self) -> list[ProcessId]:
        """Return who is in the cgroup, and who left it."""
        return list({*self._leaf.members(), *self._sweep.members()})

    def left(self) -> list[ProcessId]:
        """Return who is in the cgroup; when nobody is, who is elsewhere."""
        if inside := self._leaf.members():
            return list({*inside, *self._sweep.seen()})
        return self._sweep.left()


def tree_of(main: MainProcess, mark: str, leaf: Leaf | None) -> Tree:
    """Return the strongest tree there is for a worker."""
    sweep = Sweep(main, mark)
    return sweep if leaf is None else CgroupTree(leaf, main, sweep)


def send(process: ProcessId, number: int) -> None:
    """Send a signal to this very process, if it still lives.

    What cannot be reached (another user's, or no descriptor is left to hold it by) shows up as a
    survivor.
    """
    with suppress(OSError):
        pidfd = os.pidfd_open(process.pid)
        try:
            if still_living(process):
                signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)


def _signal_group(group: int, number: int) -> None:
    """Signal a group at one blow, which no fork escapes: the kernel holds it off meanwhile."""
    if group <= 1:  # to the kernel these are not groups: its own caller's, and everybody
        return
    # No permission: every member changed its user. They show up as survivors.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _identity(one: Stat) -> ProcessId:
    return ProcessId(one.pid, one.start_ticks)


def _is_same(examined: dict[int, Stat], member: ProcessId) -> bool:
    one = examined.get(member.pid)
    return one is not None and one.start_ticks == member.start_ticks
