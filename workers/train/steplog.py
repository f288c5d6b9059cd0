"""A file of JSON lines, one for each step that has one, each step once however often it is cut off.

Owns the file's place and end. Never reads it all. Invariant: steps grow from line to line; after
`cut(step)` the file ends with the last whole line whose step is at most that one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

BLOCK_BYTES = 64 * 1024


class StepLog:
    """The file at `path`, opened for appending. Raises OSError like what it is made of."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._unsynced = False

    def cut(self, step: int) -> None:
        """Cut off a torn end and all lines of later steps, and write behind what is left."""
        end = _end_of(self._open(), step)
        os.ftruncate(self._open(), end)
        os.lseek(self._open(), end, os.SEEK_SET)

    def append(self, text: str) -> None:
        """Append whole lines; what cannot be written whole is a torn end, cut off by the next."""
        rest = memoryview(text.encode("ascii"))
        self._unsynced = True
        while rest:
            rest = rest[os.write(self._open(), rest) :]

    def sync(self) -> None:
        """Have it survive the host."""
        if self._unsynced:
            os.fsync(self._open())
            self._unsynced = False

    def close(self) -> None:
        """Close it; once is enough."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _open(self) -> int:
        if self._fd is None:
            raise ValueError(f"{self.path} was closed")
        return self._fd


def _end_of(fd: int, step: int) -> int:
    """Find the offset behind the last whole line of a step that is at most this one."""
    offset, rest = os.fstat(fd).st_size, b""  # `rest` begins at `offset`
    torn = True  # what follows the last newline is no whole line
    while offset > 0:
        begin = max(0, offset - BLOCK_BYTES)
        rest = os.pread(fd, offset - begin, begin) + rest
        offset = begin
        while (line_end := rest.rfind(b"\n", 0, None if torn else len(rest) - 1)) >= 0:
            line = b"" if torn else rest[line_end + 1 :]
            if not torn and _is_kept(line, step):
                return offset + len(rest)
            rest, torn = rest[: line_end + 1], False
    return len(rest) if not torn and _is_kept(rest, step) else 0


def _is_kept(line: bytes, step: int) -> bool:
    try:
        return bool(json.loads(line)["step"] <= step)
    except (ValueError, TypeError, KeyError):
        return False  # damaged; whole lines before it may be left
