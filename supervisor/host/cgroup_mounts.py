"""Where the cgroup hierarchies of this host are, and where in them this process stands.

Owns reading mountinfo and the process's own cgroup file. Never looks into a hierarchy. Invariant:
`own` is a folder that is there; a place that our mounts or namespace do not show is None.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from supervisor.host import cgroup_files as files

_LEGACY = frozenset({"memory", "pids", "freezer"})
_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """One mounted cgroup hierarchy. `controllers` are version 1's; version 2 lists its in files."""

    version: int
    point: Path
    controllers: frozenset[str]
    read_only: bool
    own: Path | None


def hierarchies(proc: Path) -> tuple[Hierarchy, ...]:
    """Return the hierarchies that are mounted here: first those that may be written and show us.

    `proc` is /proc, or a picture of it.
    """
    try:
        mounts = (proc / "self/mountinfo").read_text(encoding="utf-8", errors="replace")
        standing = (proc / "self/cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    found = _parsed(mounts, dict(_standing(standing)))
    return tuple(sorted(found, key=lambda one: (one.read_only, one.own is None)))


def _standing(text: str) -> Iterator[tuple[str, str]]:
    """Yield (controller, path) of cgroups(7)'s lines `4:memory:/a`; "" stands for version 2."""
    for line in text.splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        for controller in controllers.split(","):
            yield controller, path


def _parsed(text: str, standing: dict[str, str]) -> Iterator[Hierarchy]:
    """Yield the cgroup lines of proc_pid_mountinfo(5)."""
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        mount, kind = left.split(), right.split()
        if len(mount) < 6 or len(kind) < 3 or kind[0] not in {"cgroup", "cgroup2"}:  # noqa: PLR2004 -- fields of the line
            continue
        version = 2 if kind[0] == "cgroup2" else 1
        controllers = _LEGACY & set(kind[2].split(",")) if version == 1 else frozenset()
        key = min(controllers, default=None) if version == 1 else ""
        point = Path(_plain(mount[4]))
        own = _own(point, _plain(mount[3]), standing.get(key)) if key is not None else None
        read_only = "ro" in {*mount[5].split(","), *kind[2].split(",")}
        yield Hierarchy(version, point, frozenset(controllers), read_only, own)


def _own(point: Path, root: str, path: str | None) -> Path | None:
    # A path that begins with /.. lies outside our cgroup namespace.
    if path is None or path.startswith("/.."):
        return None
    try:
        below = PurePosixPath(path).relative_to(root)
    except ValueError:  # the mount shows another part of the hierarchy
        return None
    folder = point / below
    return folder if files.there(folder) else None


def _plain(field: str) -> str:
    """Undo the octal escapes with which mountinfo writes spaces."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), field)
