"""Deleting old checkpoints of the user's, when the job asks for it (`checkpoint.keep`).

Owns the only deletion of user files in this project. Invariant: what is deleted was verified, is
unchanged since, is none of the newest `keep` verified ones and was not named to be spared; a
folder is renamed before it is emptied, so a crash leaves no half of a checkpoint.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from supervisor.checkpoint.find import Found
from supervisor.checkpoint.fingerprint import fingerprint
from supervisor.checkpoint.layout import Layout
from supervisor.checkpoint.names import REMOVED_SUFFIX, hidden
from supervisor.host.durable import fsync_folder


def retain(
    layout: Layout, verified: Sequence[Found], keep: int, spared: Path | None = None
) -> list[Path]:
    """Delete the verified checkpoints beyond the newest `keep`; give what was deleted.

    `spared` is never deleted: the one that the running attempt resumed from.

    Raises:
        ValueError: `keep` is below 1.
        OSError: one could not be deleted; it is whole or no longer has a checkpoint's name.

    """
    if keep < 1:
        raise ValueError(f"checkpoint.keep must be at least 1, not {keep}")
    ordered = sorted(verified, key=lambda one: (-one.step, str(one.path)))
    deleted = []
    for found in ordered[keep:]:
        _finish(found.path)
        inside = found.path.is_relative_to(layout.root)
        if inside and found.path != spared and _is_unchanged(found):
            _delete(found.path)
            deleted.append(found.path)
    return deleted


def _delete(path: Path) -> None:
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        removed = path.with_name(hidden(path.name, REMOVED_SUFFIX))
        path.rename(removed)
        fsync_folder(path.parent)
        shutil.rmtree(removed)
    fsync_folder(path.parent)


def _finish(path: Path) -> None:
    """Delete what a killed run renamed and did not get to delete."""
    for leftover in path.parent.glob(f".*{REMOVED_SUFFIX}"):
        shutil.rmtree(leftover)


def _is_unchanged(found: Found) -> bool:
    try:
        return fingerprint(found.path) == found.fingerprint
    except OSError:
        return False
