"""Memory of a cgroup: its limit, and what the kernel tells of it afterwards.

Owns what version 1 and version 2 call the same things. Never decides a limit. Invariant: a limit
leaves no way round it into swap where the kernel accounts for swap.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from supervisor.host import cgroup_files as files

_NO_LIMIT_BYTES = 1 << 62  # version 1 writes "no limit" as the greatest number of whole pages

_NEAR = 0.95  # of the limit: the charge that failed is not in the peak


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """What a cgroup's memory came to.

    `oom_kills` counts its processes that any out-of-memory kill of the kernel took: not zero, but
    one too many when a whole group was killed. `at_limit` says whether a limit was reached, its own
    or that of a cgroup above, which `source` names; if not, the host's memory was what ran out.
    """

    limit_bytes: int | None = None
    peak_bytes: int | None = None
    used_bytes: int | None = None
    oom_kills: int = 0
    at_limit: bool = False
    source: str = ""


def limit(folder: Path, version: int, limit_bytes: int) -> None:
    """Limit the memory of a cgroup. Raises OSError, which names the file."""
    required, optional = _LIMITS[version]
    for name, text in required(limit_bytes):
        files.write(folder / name, text)
    for name, text in optional(limit_bytes):
        with suppress(OSError):  # a kernel that does not account for swap
            files.write(folder / name, text)


def above(folder: Path) -> dict[Path, int]:
    """Return how often each cgroup above this one was at its own limit so far, the nearest first.

    Nobody tells that of version 1, nor of the root, which has no limit.
    """
    counts = {}
    for one in folder.parents:
        events = files.keyed(one / "memory.events.local")
        if not events:
            break
        counts[one] = events.get("oom", 0)
    return counts


def facts(folder: Path, version: int, before: Mapping[Path, int] | None = None) -> MemoryFacts:
    """Return what the kernel tells of a cgroup; nothing of one that is gone.

    `before` is what `above` said when it was made: whose limit was reached since then is told.
    """
    if not folder.is_dir():
        return MemoryFacts()
    found = _FACTS[version](folder)
    if not before or not found.oom_kills or found.at_limit:
        return found
    for one, count in above(folder).items():
        if count > before.get(one, count):
            limit_bytes = files.number(one / "memory.max")
            source = f"{found.source}: the limit of {one}, around it"
            return replace(found, at_limit=True, limit_bytes=limit_bytes, source=source)
    return found


def _facts_v1(folder: Path) -> MemoryFacts:
    limit_bytes = files.number(folder / "memory.limit_in_bytes")
    peak_bytes = files.number(folder / "memory.max_usage_in_bytes")
    if limit_bytes is not None and limit_bytes >= _NO_LIMIT_BYTES:
        limit_bytes = None
    return MemoryFacts(
        limit_bytes=limit_bytes,
        peak_bytes=peak_bytes,
        used_bytes=files.number(folder / "memory.usage_in_bytes"),
        oom_kills=files.keyed(folder / "memory.oom_control").get("oom_kill", 0),
        # memory.failcnt would say it, and stays 0 on newer kernels.
        at_limit=limit_bytes is not None and (peak_bytes or 0) >= _NEAR * limit_bytes,
        source="cgroup v1",
    )


def _facts_v2(folder: Path) -> MemoryFacts:
    events = files.keyed(folder / "memory.events")
    return MemoryFacts(
        limit_bytes=files.number(folder / "memory.max"),
        peak_bytes=files.number(folder / "memory.peak"),
        used_bytes=files.number(folder / "memory.current"),
        oom_kills=events.get("oom_kill", 0),
        at_limit=events.get("oom", 0) > 0,
        source="cgroup v2",
    )


Lines = Callable[[int], tuple[tuple[str, str], ...]]

_LIMITS: dict[int, tuple[Lines, Lines]] = {
    1: (
        lambda size: (("memory.limit_in_bytes", str(size)),),
        lambda size: (("memory.memsw.limit_in_bytes", str(size)),),
    ),
    2: (
        lambda size: (("memory.max", str(size)),),
        lambda _: (("memory.swap.max", "0"),),
    ),
}
_FACTS: dict[int, Callable[[Path], MemoryFacts]] = {1: _facts_v1, 2: _facts_v2}
