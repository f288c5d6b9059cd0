"""Setting a bad checkpoint aside: out of every script's sight, never deleted.

Owns the move and the reason written beside it. A new name in the same folder is not enough:
transformers' rotation globs `checkpoint-*` and would count (and delete) `checkpoint-5.bad`;
Lightning reads the digits of every name that contains `ckpt_`, so `hpc_ckpt_5.bad-1` becomes
version 51. Hence a hidden folder, `.set-aside`, next to the checkpoint, and in it a name with
another suffix, for globs that look into hidden folders. Invariant: no file that existed before is
ever overwritten or removed.
"""

import os
from pathlib import Path
from typing import Final

from supervisor.checkpoint.errors import SetAsideFailed
from supervisor.checkpoint.names import ASIDE_FOLDER, with_suffix
from supervisor.host.durable import FULL, fsync_folder

_ATTEMPTS: Final = 10_000
_REASON_SUFFIX: Final = ".why.txt"


def set_aside(path: Path, reason: str) -> Path:
    """Move a checkpoint (file, folder or link) to `.set-aside/NAME.set-aside-N` beside it.

    The reason stands in a text file of the same name and `.why.txt`. Of a link the link is moved,
    not what it points to.

    Raises:
        SetAsideFailed: it could not be moved; it is where it was.

    """
    folder = path.parent / ASIDE_FOLDER
    try:
        folder.mkdir(exist_ok=True)
        fsync_folder(path.parent)
        target = _reserve(folder, path.name, reason)
        try:
            _move(path, target)
        except OSError:
            target.with_name(target.name + _REASON_SUFFIX).unlink(missing_ok=True)
            raise
        fsync_folder(folder)
        fsync_folder(path.parent)
    except OSError as error:
        raise SetAsideFailed(path, error.strerror or str(error)) from error
    return target


def _reserve(folder: Path, name: str, reason: str) -> Path:
    """Claim a number by creating its text file, which must not exist yet."""
    for number in range(1, _ATTEMPTS):
        suffix = f".set-aside-{number}"
        target = folder / with_suffix(name, suffix, spare_bytes=len(_REASON_SUFFIX))
        note = target.with_name(target.name + _REASON_SUFFIX)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        if os.path.lexists(target):
            continue
        try:
            descriptor = os.open(note, flags, 0o644)
        except FileExistsError:
            continue
        try:
            os.write(descriptor, f"{name}\n{reason}\n".encode("utf-8", "backslashreplace"))
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in FULL:  # on a full disk the move matters more than the note
                raise
        finally:
            os.close(descriptor)
        return target
    raise FileExistsError(f"{folder} holds {_ATTEMPTS} of that name already; empty it")


def _move(path: Path, target: Path) -> None:
    if not path.is_symlink():
        path.rename(target)
        return
    # A relative link would point elsewhere from inside the folder: make one that says the same.
    text = path.readlink()
    target.symlink_to(text if text.is_absolute() else os.path.join("..", text))  # noqa: PTH118 - ".." is kept as it is
    path.unlink()
