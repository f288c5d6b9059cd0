"""The file of results: one line `{"item": ..., "result": ...}` for each item that is done.

Owns the bytes of that file; what is done is said by the journal alone. Invariant: the first
`acknowledged` bytes are whole lines that belong to settled items and are never written again, so
cutting the file back to them is always right.

The order is: lines are written and synced, then their items are settled with the new length. A
runner that dies in between leaves lines behind that the journal knows nothing of; the next one cuts
them off, and their items run again.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from supervisor.host.durable import fsync_folder

_FLAGS: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class ResultsProblem(Exception):
    """The file of results cannot be trusted or used; the message says why and what to do."""


class ResultsShort(ResultsProblem):
    """Results of items that are done are missing from the file, or all of it is."""


class Results:
    """The open file. One runner writes to it at a time; its job's lock sees to that."""

    def __init__(self, path: Path, acknowledged_bytes: int) -> None:
        """Open the file for going on behind its acknowledged bytes; what lies beyond is cut off.

        Where nothing is acknowledged yet, file and folder are made.

        Raises:
            ResultsShort: acknowledged bytes are missing; nothing was changed.
            ResultsProblem: there is something else in its place, or it was changed by another.
            OSError: the disk refuses.
        """
        self.path = path
        self._length = acknowledged_bytes
        self._lines: list[bytes] = []
        self._torn = False  # an earlier write may have left a part of itself
        self._file = _opened(path, acknowledged_bytes)
        try:
            self._recover()
        except BaseException:
            self.close()
            raise

    def add(self, item: str, result: bytes) -> None:
        """Take a result, both as JSON texts; it is not in the file before the next `sync`."""
        self._lines.append(b'{"item":%b,"result":%b}\n' % (item.encode("ascii"), result))

    def sync(self) -> int:
        """Write what was added and make it durable: the file's length then, to be settled.

        Raises:
            ResultsProblem: somebody else wrote to the file, or took it away.
            OSError: the disk is full or failing. Nothing is lost: what was added is kept, and the
                next call tries again from the same place.
        """
        if self._lines:
            self._check_unchanged()
            self._torn = True
            content = b"".join(self._lines)
            self._write(content)
            os.fsync(self._file)
            self._torn = False
            self._length += len(content)
            self._lines.clear()
        return self._length

    def close(self) -> None:
        """Release the file; what was not synced is forgotten."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _recover(self) -> None:
        size = os.fstat(self._file).st_size
        if size < self._length:
            raise ResultsShort(_short(self.path, size, self._length))
        if self._length and os.pread(self._file, 1, self._length - 1) != b"\n":
            raise ResultsProblem(
                f"{self.path} was changed: its first {self._length} bytes, which hold the results "
                f"of finished items, do not end with a whole line. {_WAY_OUT}"
            )
        if size > self._length:
            os.ftruncate(self._file, self._length)
            os.fsync(self._file)

    def _write(self, content: bytes) -> None:
        view, at = memoryview(content), self._length
        while view:
            written = os.pwrite(self._file, view, at)
            view, at = view[written:], at + written

    def _check_unchanged(self) -> None:
        ours = os.fstat(self._file)
        try:
            named = os.lstat(self.path)
        except OSError:
            named = None
        if named is None or not os.path.samestat(ours, named):
            raise ResultsShort(f"{self.path} was removed or replaced while the job ran. {_WAY_OUT}")
        if self._torn:
            os.ftruncate(self._file, self._length)
        elif ours.st_size != self._length:
            raise ResultsProblem(
                f"{self.path} was changed while the job ran: it has {ours.st_size} bytes instead "
                f"of {self._length}. {_WAY_OUT}"
            )


_WAY_OUT: Final = (
    "Nothing was written. Put the file back as it was, or name another `out` folder in the job "
    "file, under another `name`: all items are then done again."
)


def _short(path: Path, size: int, acknowledged: int) -> str:
    there = f"has {size} bytes" if size else "is empty"
    return (
        f"{path} {there}, but the results of finished items take {acknowledged}: some of them are "
        f"lost. {_WAY_OUT}"
    )


def _opened(path: Path, acknowledged: int) -> int:
    with _described(path):
        if acknowledged:
            return _regular(path, _existing(path, acknowledged))
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _regular(path, os.open(path, _FLAGS | os.O_CREAT, 0o644))
        fsync_folder(path.parent)
        return file


def _existing(path: Path, acknowledged: int) -> int:
    try:
        return os.open(path, _FLAGS)
    except FileNotFoundError as error:
        raise ResultsShort(
            f"{path} is missing, but {acknowledged} bytes of results of finished items were in it. "
            f"{_WAY_OUT}"
        ) from error


def _regular(path: Path, file: int) -> int:
    kind = stat.S_IFMT(os.fstat(file).st_mode)
    if kind == stat.S_IFREG:
        return file
    os.close(file)
    raise ResultsProblem(f"{path} is {_KINDS.get(kind, 'no file')}, not a file. {_ASIDE}")


_ASIDE: Final = "Move it away, or name another `out` folder in the job file."
_KINDS: Final = {stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


@contextmanager
def _described(path: Path) -> Iterator[None]:
    """Say in words what stands in the way; other errors of the disk pass as they are."""
    try:
        yield
    except OSError as error:
        if path.is_symlink():
            what = f"{path} is a symbolic link: results could overwrite what it points to"
        elif path.is_dir():
            what = f"{path} is a folder, not a file"
        elif isinstance(error, (FileExistsError, NotADirectoryError)):
            what = f"{path.parent} is no folder"
        elif isinstance(error, PermissionError):
            what = f"{path} may not be written: {error.strerror}"
        else:
            raise
        raise ResultsProblem(f"{what}. {_ASIDE}") from error
