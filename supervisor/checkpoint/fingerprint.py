"""The identity of a checkpoint's bytes without reading them.

Owns `Fingerprint`; reads metadata only. The change time is part of it because `cp -p`, `rsync -t`
and `tar` set the modification time back. Invariant: two equal fingerprints, the later one taken
more than `RACY_NS` after the last write, mean equal bytes; clocks of file systems are too coarse
to promise it earlier.
"""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from supervisor.checkpoint.walk import Walk

RACY_NS: Final = 2_000_000_000  # FAT and old NFS servers keep whole or even seconds


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What `stat` tells of a file; of a folder: totals, and a digest over all files within."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    digest: str = ""

    @property
    def token(self) -> str:
        """One line of text that is equal exactly when the fingerprints are."""
        return (
            f"{self.size_bytes}:{self.mtime_ns}:{self.ctime_ns}:{self.inode}:{self.digest or '-'}"
        )

    @classmethod
    def from_token(cls, token: str) -> Self:
        """Build it from `token`.

        Raises:
            ValueError: the text is not a token.

        """
        size_bytes, mtime_ns, ctime_ns, inode, digest = token.split(":")
        plain = "" if digest == "-" else digest
        return cls(int(size_bytes), int(mtime_ns), int(ctime_ns), int(inode), plain)

    def is_racy(self, now_ns: int) -> bool:
        """Tell whether a write at `now_ns` (wall clock) could leave this fingerprint unchanged.

        A time in the future (another host's clock) counts as racy too: it costs a second reading.
        """
        return now_ns - max(self.mtime_ns, self.ctime_ns) < RACY_NS


def fingerprint(path: Path) -> Fingerprint:
    """Take the fingerprint of a file or folder; links are followed.

    Raises:
        OSError: it is gone or may not be read; NotADirectoryError for a pipe, socket or device.

    """
    status = path.stat()
    if stat.S_ISREG(status.st_mode):
        return Fingerprint(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(f"{path} is neither a file nor a folder")
    return _of_folder(path, status)


def _of_folder(path: Path, status: os.stat_result) -> Fingerprint:
    walk, lines = Walk(), []
    size_bytes, mtime_ns, ctime_ns = 0, status.st_mtime_ns, status.st_ctime_ns
    for relative, entry in walk.contents(path):
        try:
            inner = entry.stat()
        except OSError:  # a dangling link, or gone meanwhile: it must not look unchanged
            lines.append(f"{relative}\0?")
            continue
        if stat.S_ISREG(inner.st_mode):
            size_bytes += inner.st_size
        mtime_ns, ctime_ns = max(mtime_ns, inner.st_mtime_ns), max(ctime_ns, inner.st_ctime_ns)
        lines.append(
            f"{relative}\0{inner.st_size}\0{inner.st_mtime_ns}\0{inner.st_ctime_ns}\0{inner.st_ino}"
        )
    if walk.problems:
        where, why = walk.problems[0]
        raise PermissionError(f"{where} {why}")
    text = "\n".join(sorted(lines)).encode("utf-8", "surrogateescape")
    digest = hashlib.sha256(text).hexdigest()
    return Fingerprint(size_bytes, mtime_ns, ctime_ns, status.st_ino, digest)
