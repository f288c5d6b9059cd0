"""Folders in /dev/shm, where everybody may make some: whose they are, and whether to trust them.

Owns the paths of the memory tiers and the file in each that says which job it is of; never looks at
a snapshot. Invariant: against what is no folder, is another user's, or may be used by others there
is an objection; whoever hears one reads and removes nothing there.
"""

import json
import os
import re
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

ROOT: Final = Path("/dev/shm")  # noqa: S108 - the one tmpfs that every host has
OWNER: Final = "owner"  # the file that says whose folder it is
_OTHERS: Final = 0o077
# As workers.leftovers spells them, with the pid of the writer; and ours.
_LEFTOVER: Final = re.compile(
    r"\.step-\d+(\.(\d+)(-\d+)?\.(partial|removed)|\.supervise-removed)", re.ASCII
)


def base() -> Path:
    """The folder of this user, which holds those of the jobs."""
    return ROOT / f"supervise-{os.geteuid()}"


def owner_of(state_dir: Path, job_id: str) -> str:
    """Which job it is, beyond doubt: the state folder by its inode as well as by its path."""
    path = state_dir.resolve()
    try:
        status = path.stat()
        identity = [status.st_dev, status.st_ino]
    except OSError:
        identity = []
    return json.dumps({"state_dir": str(path), "identity": identity, "job": job_id})


def said_owner(folder: Path) -> str | None:
    """Whose folder it says to be; None where it says nothing."""
    try:
        return (folder / OWNER).read_text(encoding="utf-8") or None  # empty: killed while writing
    except (OSError, ValueError):
        return None


def objection(folder: Path) -> str | None:
    """Why a folder in /dev/shm is not to be trusted; None where it is there and this user's."""
    try:
        status = folder.lstat()
    except OSError as error:
        return f"cannot be looked at ({error.strerror})"
    if not stat.S_ISDIR(status.st_mode):
        return "is no folder"
    if status.st_uid != os.geteuid():
        return f"belongs to user {status.st_uid}"
    if status.st_mode & _OTHERS:
        return f"may be used by others (mode {stat.S_IMODE(status.st_mode):o})"
    return None


def is_leftover(name: str) -> bool:
    """Whether a writer that is no more left it, half written or half removed."""
    match = _LEFTOVER.fullmatch(name)
    return match is not None and (match[2] is None or not Path("/proc", match[2]).exists())


def delete(path: Path) -> None:
    """Remove a file, a link or a folder; that it is gone already is as good.

    Raises:
        OSError: it cannot be removed.
    """
    with suppress(FileNotFoundError):  # somebody was quicker
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
