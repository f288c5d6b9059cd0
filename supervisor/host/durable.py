"""Files that appear whole: temporary name, fsync, rename, fsync of the folder.

Owns durability of single files and of names in a folder; knows nothing of what is in them, nor how
the temporary names are spelled. Invariant: a reader sees the old content or the new one, never a
mixture and never nothing.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
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
def replacing(path: Path, temporary: Path, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Write a file under its temporary name; it takes `path` when the block has ended well.

    Both names are in one folder; a leftover of the temporary one is replaced.

    Raises:
        OSError: it could not be written; what had the name has it still.

    """
    try:
        with _new(temporary, mode) as file:
            yield file
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def write_new(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file and fsync it, replacing a leftover of the same (temporary) name.

    Raises:
        OSError: it could not be written.

    """
    with _new(path, mode) as file:
        file.write(content)


@contextmanager
def _new(path: Path, mode: int) -> Iterator[BinaryIO]:
    path.unlink(missing_ok=True)
    with open(os.open(path, _FLAGS, mode), "wb") as file:  # noqa: PTH123 - takes a descriptor
        yield file
        file.flush()
        os.fsync(file.fileno())
