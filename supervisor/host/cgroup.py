"""The control groups of one attempt.

Owns a leaf: one folder of the same name in each hierarchy that is used, made for one attempt and
removed after it. Never touches a cgroup that it did not make. Invariant: leaves are siblings, so
that no job's limit holds for another's.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from supervisor.host import cgroup_files as files
from supervisor.host import cgroup_kill, cgroup_memory
from supervisor.host.cgroup_memory import MemoryFacts
from supervisor.host.cgroup_offer import TREE, Offer, hand_down, survey
from supervisor.host.processes import ProcessId, living

__all__ = ["Leaf", "MemoryFacts", "Offer", "leftovers", "survey"]

_TRIES = 5


class Leaf:
    """One attempt's own cgroups. `entries` are the files to which a process writes 0 to enter.

    Every question and every lever works on as much of it as there is, also when it is gone.
    """

    __slots__ = (
        "_above",
        "_folders",
        "_freezer",
        "_kill",
        "_memory",
        "_pids",
        "_version",
        "entries",
        "name",
    )

    def __init__(self, offer: Offer, name: str) -> None:
        self.name = name
        bases = dict.fromkeys(base for base in (offer.kill, offer.memory, offer.pids) if base)
        self._folders = tuple(base / name for base in bases)
        self._kill, self._memory, self._pids = (
            base / name if base else None for base in (offer.kill, offer.memory, offer.pids)
        )
        self._version = offer.version_memory
        self._above: dict[Path, int] = {}
        self._freezer = offer.freezer
        self.entries = tuple(folder / "cgroup.procs" for folder in self._folders)

    @classmethod
    def make(cls, offer: Offer, name: str) -> Self:
        """Make the folders of a new leaf. Raises OSError, and leaves none behind then."""
        leaf = cls(offer, name)
        made: list[Path] = []
        try:
            for folder in leaf._folders:
                _grow(folder)
                made.append(folder)
        except OSError:
            for folder in made:
                _remove(folder)
            raise
        if leaf._memory is not None and leaf._version == 2:  # noqa: PLR2004 -- cgroup v2
            with suppress(OSError):  # before Linux 4.19
                files.write(leaf._memory / "memory.oom.group", "1")
        leaf.begin()
        return leaf

    def begin(self) -> None:
        """Count from now on what is reached around it, for one that was made ahead of its use."""
        if self._memory is not None and self._version == 2:  # noqa: PLR2004 -- cgroup v2
            self._above = cgroup_memory.above(self._memory)

    def adopt(self, pid: int) -> None:
        """Move a process here, which takes the kernel some milliseconds. Raises OSError."""
        for entry in self.entries:
            files.write(entry, str(pid))

    def limit(self, *, memory_bytes: int | None, pids: int | None) -> None:
        """Limit memory and number of processes; None, or a lever not on offer, limits nothing.

        Raises OSError, which names the file, when the kernel refuses.
        """
        if memory_bytes is not None and self._memory is not None:
            cgroup_memory.limit(self._memory, self._version, memory_bytes)
        if pids is not None and self._pids is not None:
            files.write(self._pids / "pids.max", str(pids))

    def kill(self) -> None:
        """Send SIGKILL to every member, frozen ones included; may be repeated."""
        at_once = False
        if self._kill is not None:
            with suppress(OSError):  # gone, and nobody in it
                files.write(self._kill / "cgroup.kill", "1")
                at_once = True
        if not at_once and self._pids is not None:
            with suppress(OSError):  # nobody is to be born while members are killed one by one
                files.write(self._pids / "pids.max", "0")
        cgroup_kill.one_by_one(self._beyond_the_kill if at_once else self._listed)
        if self._freezer is not None:
            cgroup_kill.thaw(self._freezer, self._listed())

    def members(self) -> list[ProcessId]:
        """Return who lives in any of its folders."""
        return [member for pid in sorted(self._listed()) if (member := living(pid))]

    def empty(self) -> bool:
        """Return whether nobody is left in it; cheap where the kernel keeps count."""
        return not any(map(_populated, self._folders))

    def frozen(self) -> bool:
        """Return whether a freezer holds any of it, or a part of it."""
        for folder in self._folders:
            for one in files.folders(folder):
                if files.keyed(one / "cgroup.events").get("frozen"):
                    return True
        return bool(self._freezer and cgroup_kill.frozen(self._freezer, self._listed()))

    def memory(self) -> MemoryFacts:
        """Return what the kernel tells of its memory; ask before it is removed."""
        if self._memory is None:
            return MemoryFacts()
        return cgroup_memory.facts(self._memory, self._version, self._above)

    def remove(self) -> bool:
        """Remove its folders, and those that the worker made below; return whether all are gone."""
        gone = [_remove(folder) for folder in self._folders]
        return all(gone)

    def _listed(self) -> set[int]:
        return set().union(*map(files.pids, self._folders))

    def _beyond_the_kill(self) -> set[int]:
        """Return members that left the folder whose members were killed at once."""
        others = [folder for folder in self._folders if folder != self._kill]
        if not others or self._kill is None:
            return set()
        # In this order: whoever dies in between is looked at once more, and not found.
        listed = set().union(*map(files.pids, others))
        return listed - files.pids(self._kill)


def leftovers(offer: Offer, prefix: str) -> list[Leaf]:
    """Return the leaves whose name begins so: what earlier runners left, when they are gone."""
    return [Leaf(offer, name) for name in sorted(set(_names(offer, prefix)))]


def _names(offer: Offer, prefix: str) -> Iterator[str]:
    for base in filter(None, {offer.kill, offer.memory, offer.pids}):
        with suppress(OSError):
            yield from (one.name for one in base.iterdir() if one.name.startswith(prefix))


def _grow(folder: Path) -> None:
    for _ in range(_TRIES):
        # Whoever removes the last leaf removes the tree as well, perhaps just now.
        with suppress(FileNotFoundError):
            if folder.parent.name == TREE:
                folder.parent.mkdir(exist_ok=True)
                hand_down(folder.parent)
            folder.mkdir()
            return
    folder.mkdir()


def _remove(folder: Path) -> bool:
    gone = files.remove(folder)
    if folder.parent.name == TREE:
        with suppress(OSError):  # other leaves are in it
            folder.parent.rmdir()
    return gone


def _populated(folder: Path) -> bool:
    populated = files.keyed(folder / "cgroup.events").get("populated")
    return bool(files.pids(folder) if populated is None else populated)
