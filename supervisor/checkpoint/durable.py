"""Small writes that survive a crash: temporary name, fsync, rename, fsync of the folder.

Owns durability of single files and folder entries; knows nothing of checkpoints. Invariant: a
reader sees the old content or the new one, never a mixture and never nothing.
"""

import errno
import os
from pathlib import Path
from typing import Final

from supervisor.checkpoint.names import WRITE_SUFFIX, hidden

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_FSYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF})


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable; file systems that cannot are left alone.

    Raises:
        OSError: the disk failed.

    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FSYNC:  # some network and FUSE folders refuse fsync
            raise
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Give `path` this content, durably and in one step.

    Raises:
        OSError: it could not be written; the old content stands.

    """
    temporary = path.with_name(hidden(path.name, WRITE_SUFFIX))
    try:
        write_new(temporary, content, mode)
        temporary.rename(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def write_new(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file and fsync it, replacing a leftover of the same (temporary) name.

    Raises:
        OSError: it could not be written.

    """
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(path, flags, mode), "wb") as file:  # noqa: PTH123 - takes a descriptor
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
