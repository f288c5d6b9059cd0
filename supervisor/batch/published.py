"""Files that appear whole: temporary name, fsync, rename, fsync of the folder.

Owns durability of the files that a batch job publishes; knows nothing of what is in them.
Invariant: a reader sees the old content or the new one, never a part.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

_NO_FSYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF})
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


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


@contextmanager
def published(path: Path) -> Iterator[BinaryIO]:
    """Write a file that takes its name when the block has ended well.

    Raises:
        OSError: it could not be written; what had the name has it still.
    """
    temporary = path.with_name(f".{path.name}.part")
    temporary.unlink(missing_ok=True)
    try:
        with open(os.open(temporary, _FLAGS, 0o644), "wb") as file:  # noqa: PTH123 - a descriptor
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def withdrawn(path: Path) -> None:
    """Take a file away, durably; that there is none is as good.

    Raises:
        OSError: the disk refuses.
    """
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return
    fsync_folder(path.parent)
