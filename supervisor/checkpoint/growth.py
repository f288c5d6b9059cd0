"""A cheap sign that a checkpoint is being written.

Owns one token over the folders where checkpoints appear, unfinished names included; reads no
bytes. Invariant: at most `ENTRY_LIMIT` names are looked at, in the folders that the glob can reach.
"""

import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path, PurePosixPath
from typing import Final

from supervisor.checkpoint.layout import Layout
from supervisor.checkpoint.names import ASIDE_FOLDER, looks_unfinished
from supervisor.checkpoint.walk import Walk

ENTRY_LIMIT: Final = 10_000
_DEEP: Final = 4  # a directory checkpoint keeps its files this deep at most, for this purpose


@dataclass(frozen=True, slots=True)
class Growth:
    """Unequal tokens mean that something was written, renamed or deleted in between."""

    total_bytes: int
    newest_mtime_ns: int
    count: int
    digest: int  # over names, sizes and times: one file dated in the future must not hide the rest


def growth(layout: Layout) -> Growth:
    """Look at the sizes and times where the layout's checkpoints appear. Raises nothing.

    Beyond `ENTRY_LIMIT` names (a folder with a hundred thousand files beside its checkpoints) the
    rest is not looked at, so that one look stays in the order of ten milliseconds.
    """
    walk = Walk(budget=ENTRY_LIMIT)
    total_bytes = newest_ns = count = digest = 0
    for name, size_bytes, mtime_ns in _area(walk, layout):
        total_bytes += size_bytes
        newest_ns = max(newest_ns, mtime_ns)
        count += 1
        digest = zlib.crc32(os.fsencode(f"{name}/{size_bytes}/{mtime_ns}"), digest)
    return Growth(total_bytes, newest_ns, count, digest)


def _area(walk: Walk, layout: Layout) -> Iterator[tuple[str, int, int]]:
    parts = PurePosixPath(layout.glob).parts
    pending: list[tuple[Path, tuple[str, ...], int]] = [(layout.root, parts, _DEEP)]
    while pending:
        folder, rest, deep = pending.pop(0)
        for entry in walk.entries(folder):
            try:
                is_folder, status = entry.is_dir(), entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if not is_folder:
                yield entry.name, status.st_size, status.st_mtime_ns
            elif entry.name != ASIDE_FOLDER:
                below = _descend(entry.name, rest, deep)
                by_name = rest and rest[0] != "**"  # elsewhere a link may go round in circles
                if below is not None and (by_name or not entry.is_symlink()):
                    yield entry.name, 0, status.st_mtime_ns
                    pending.append((folder / entry.name, *below))


def _descend(name: str, rest: tuple[str, ...], deep: int) -> tuple[tuple[str, ...], int] | None:
    """Say how the walk goes on in the folder `name`: the glob's remaining parts, levels left.

    The glob leads the way; below a match (a directory checkpoint) and in a folder whose name says
    that it will become one, everything counts down to `_DEEP` levels.
    """
    if not rest:
        return ((), deep - 1) if deep > 0 else None
    if rest[0] == "**":
        return (rest, deep) if not name.startswith(".") or looks_unfinished(name) else None
    if re.match(translate(rest[0]), name.lstrip(".")) or looks_unfinished(name):
        return rest[1:], deep
    return None
