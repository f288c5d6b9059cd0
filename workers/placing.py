"""Where session.publish puts a checkpoint, and how what is given to it becomes files.

Owns which folder it is, the copies of files that the script wrote by itself, and what is told when
the memory tier is full. Invariant: a full memory tier is no failure of the script, a full disk is.

Copied, not linked: many scripts write their file anew in place, and a link would change with it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from workers import faults
from workers.manifest import Unfit
from workers.protocol import ENV_CHECKPOINTS, ENV_MEMORY_TIER, ENV_SESSION
from workers.publishing import Best, Publication, Publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FICLONE = 0x40049409  # ioctl_ficlone(2): both share their blocks until one changes

_told: set[str] = set()


class Placing(TypedDict, total=False):
    """Where a checkpoint goes and which stay; see session.publish."""

    tier: str
    keep: int | None
    best: Best | None
    folder: str | os.PathLike[str] | None


def publisher_of(
    *,
    tier: str = "disk",
    keep: int | None = None,
    best: Best | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Publisher | None:
    """Return who publishes there; None where there is no folder. Raises ValueError."""
    memory = tier == "memory"
    name = ENV_MEMORY_TIER if memory else ENV_CHECKPOINTS
    place = folder or os.environ.get(name)
    publisher = Publisher(
        place or ".", tier=tier, keep=1 if memory and keep is None else keep, best=best
    )
    if place:
        return publisher
    if os.environ.get(ENV_SESSION) and not memory:
        tell("the job names no folder for checkpoints (checkpoint.dir), so none is published")
    return None


def put(
    publisher: Publisher,
    source: str | os.PathLike[str] | Callable[[Path], object],
    step: int,
    metrics: Mapping[str, float] | None,
) -> Publication | None:
    """Publish; None where the memory tier has no room. Raises as Publisher.publish does."""
    write: Any = source if callable(source) else copying(Path(source))
    if publisher.tier != "memory":
        return publisher.publish(write, step, metrics)
    try:
        return publisher.publish(write, step, metrics)
    except Exception as error:
        if faults.kind_of(error) != "disk_full":
            raise
        tell(f"no checkpoints are kept in memory: {error}")
        return None


def copying(source: Path) -> Callable[[Path], object]:
    """Return a writer that copies a file under its name, or a folder's contents."""

    def write(folder: Path) -> None:
        if not source.is_dir():
            _copy(source, folder / source.name)
            return
        for parent, folders, names in os.walk(source):
            into = folder / Path(parent).relative_to(source)
            if any(Path(parent, name).is_symlink() for name in folders + names):
                raise Unfit(f"{parent} holds links: publish the files that they point to")
            for name in folders:
                (into / name).mkdir()
            for name in names:
                _copy(Path(parent, name), into / name)

    return write


def tell(text: str) -> None:
    """Say something to the script's own log, once."""
    if text.partition(":")[0] not in _told:
        _told.add(text.partition(":")[0])
        with suppress(OSError, ValueError, AttributeError):  # no stderr, or a closed one
            print(f"supervise: {text}", file=sys.stderr, flush=True)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("xb") as written:
        try:
            fcntl.ioctl(written, FICLONE, read.fileno())
            return
        except OSError:  # another file system, or one that shares no blocks
            written.truncate(0)
    shutil.copyfile(source, target)
