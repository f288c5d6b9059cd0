"""The files that a batch job publishes: how they appear, and how they are taken away again.

Owns the spelling of their temporary names; knows nothing of what is in them. Invariant: a reader
sees the old content or the new one, never a part.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from supervisor.host.durable import fsync_folder, replacing


def published(path: Path) -> AbstractContextManager[BinaryIO]:
    """Write a file that takes its name when the block has ended well.

    Raises:
        OSError: it could not be written; what had the name has it still.
    """
    return replacing(path, path.with_name(f".{path.name}.part"))


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
