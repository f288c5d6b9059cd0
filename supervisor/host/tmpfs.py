"""Files that lie in memory: whether a folder is such a place, and how much memory there is to give.

Owns the reading of mountinfo and meminfo for that, and of the memory limits above this process;
makes no file. Invariant: where the kernel does not say, the answer is the careful one: no, or none.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from supervisor.host import cgroup_files as files
from supervisor.host.cgroup_mounts import Hierarchy, hierarchies

PROC: Final = Path("/proc")
# Files of each version: the limit, what is used, and the part of that which is only cached.
_NAMES: Final = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def is_tmpfs(folder: Path) -> bool:
    """Return whether a folder lies on a tmpfs; links are followed. proc_pid_mountinfo(5)."""
    try:
        mounts = (PROC / "self/mountinfo").read_text(encoding="utf-8", errors="replace")
        path = folder.resolve(strict=True)
    except (OSError, RuntimeError):  # gone, hidden, or links in a circle
        return False
    deepest, kind = -1, ""
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        point = fields[4] if len(fields) > 4 else ""  # noqa: PLR2004 - the fifth is the mount point
        # Of two mounts at one place the later one is what is seen.
        if point and path.is_relative_to(point) and len(point) >= deepest:
            deepest, kind = len(point), right.partition(" ")[0]
    return kind == "tmpfs"


def available_bytes(proc: Path = PROC) -> int:
    """Return how much memory could be taken without swapping, also by the limits above us."""
    host = 0
    for line in files.content(proc / "meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            host = int(line.split()[1]) << 10
    return max(0, min([host, *_below_limits(proc)]))


def whole_bytes(folder: Path) -> int:
    """Return how much the file system of `folder` can hold in all.

    Raises:
        OSError: it cannot be asked.

    """
    found = os.statvfs(folder)
    return found.f_blocks * found.f_frsize


def free_bytes(folder: Path) -> int:
    """Return how much the file system of `folder` has left.

    Raises:
        OSError: it cannot be asked.

    """
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _below_limits(proc: Path) -> Iterator[int]:
    """Yield what each memory limit above this process leaves, as of a container."""
    for one in hierarchies(proc):
        if one.own is not None and (one.version == 2 or "memory" in one.controllers):  # noqa: PLR2004 - a version
            yield from _left(one, one.own)


def _left(hierarchy: Hierarchy, own: Path) -> Iterator[int]:
    limit_name, used_name, cached_name = _NAMES[hierarchy.version]
    for folder in (own, *own.parents):
        limit, used = files.number(folder / limit_name), files.number(folder / used_name)
        if limit is not None and used is not None:
            yield limit - used + files.keyed(folder / "memory.stat").get(cached_name, 0)
        if folder == hierarchy.point:
            return
