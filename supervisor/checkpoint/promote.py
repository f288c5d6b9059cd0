"""Copying a published checkpoint to another tier, whole.

Owns the way from the memory tier to the disk; the source is only read. The copy is made and checked
under a hidden name in the destination, and one rename gives it its own, so a crash leaves at most a
hidden leftover that the next run removes. Invariant: nothing that verifies is overwritten or moved,
and when there is no room everything is as it was.
"""

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

from supervisor.checkpoint.aside import set_aside
from supervisor.checkpoint.copying import Copying
from supervisor.checkpoint.directory import check_folder
from supervisor.checkpoint.errors import CheckpointError, DiskFull
from supervisor.checkpoint.find import Found, find
from supervisor.checkpoint.layout import Layout
from supervisor.checkpoint.names import RESTORE_SUFFIX, WRITE_SUFFIX, hidden
from supervisor.checkpoint.verdict import BadBytes, Outcome
from supervisor.checkpoint.verify import verify
from supervisor.host.durable import fsync_folder

_LAST = "last"  # the link by which people find the newest


def promote(found: Found, disk: Layout) -> Path | None:
    """Copy a verified checkpoint into `disk` unless one there is as new; give where it is now.

    While no worker lives. A bad one in its place is set aside.

    Raises:
        OSError: there is no room (ENOSPC, in words), or reading or writing failed.

    """
    target = disk.root / found.path.name
    bad = None
    for there in find(disk).found:
        if there.step < found.step:
            break
        verdict = verify(there, disk, worker_lives=False)
        if verdict.ok:
            return None
        if there.path == target and verdict.outcome is Outcome.BAD:
            bad = verdict.reason
    try:
        disk.root.mkdir(parents=True, exist_ok=True)
        _put(_staged(found, target), target, bad)
    except DiskFull as full:
        raise OSError(errno.ENOSPC, str(full)) from full
    except CheckpointError as error:
        raise OSError(errno.EIO, str(error)) from error
    return target


def remove_leftovers(root: Path) -> None:
    """Take away what a run that was killed while copying has left, if anything."""
    for leftover in root.glob(f".*{RESTORE_SUFFIX}"):
        _remove(leftover)


def _staged(found: Found, target: Path) -> Path:
    """Copy beside the target, and read back what was copied."""
    remove_leftovers(target.parent)
    staged = target.with_name(hidden(target.name, RESTORE_SUFFIX))
    try:
        Copying(found.path, staged, found.fingerprint.size_bytes).run()
        check_folder(staged, found.step)
    except BadBytes as bad:
        _remove(staged)
        raise OSError(errno.EIO, f"the copy of {found.path} is not whole: {bad.reason}") from bad
    except BaseException:
        _remove(staged)
        raise
    return staged


def _put(staged: Path, target: Path, bad: str | None) -> None:
    try:
        if bad is not None:
            set_aside(target, bad)
        staged.rename(target)  # fails where a folder is that could not be judged
    except BaseException:
        _remove(staged)
        raise
    fsync_folder(target.parent)
    with suppress(OSError):  # a convenience, and not every file system has links
        _link(target.with_name(_LAST), target.name)


def _link(link: Path, text: str) -> None:
    if os.path.lexists(link) and not link.is_symlink():
        return  # somebody's own
    temporary = link.with_name(hidden(link.name, WRITE_SUFFIX))
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(text)
    temporary.rename(link)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
