"""Copying checkpoints: by reflink where the file system can, else through one buffer.

Owns copies of files and folders and the record of what was copied; knows nothing of pins. A copy
is fsynced, has a CRC-32 of the bytes that were read, and shares no byte that a writer could still
change: a hard link would not protect against a script that writes in place. Invariant: memory
does not depend on size, and nothing is written when the free space would not do.
"""

import fcntl
import os
import stat
import sys
import zlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from supervisor.checkpoint.errors import DiskFull
from supervisor.checkpoint.reading import BUFFER_BYTES, Window, open_regular, open_window
from supervisor.checkpoint.verdict import BadBytes
from supervisor.checkpoint.walk import Walk
from supervisor.host.durable import fsync_folder

_FICLONE: Final = 0x40049409  # linux/fs.h
_RESERVE_LIMIT_BYTES: Final = 1 << 30  # left to the training, which writes to the same disk
_OWNER_MAY: Final = 0o700  # what a folder needs so that the copy can be filled, and removed


@dataclass(frozen=True, slots=True)
class Part:
    """One copied file: its path in the checkpoint ("" for a file checkpoint), size and CRC-32."""

    path: str
    size_bytes: int
    crc32: int


@dataclass(slots=True)
class Copying:
    """One copy of a checkpoint of `total_bytes` into `target`, which must not exist yet."""

    source: Path
    target: Path
    total_bytes: int
    reflinks: bool = True
    parts: list[Part] = field(default_factory=list)
    cloned_bytes: int = 0
    _room_seen: bool = False

    def run(self) -> tuple[Part, ...]:
        """Copy, fsync and give the parts in order of path.

        Raises:
            DiskFull: the target has no room; what was copied is still there, for the caller.
            OSError: reading or writing failed.
            BadBytes: a file became shorter while it was read.

        """
        if self.source.is_dir():
            self._copy_folder()
        else:
            self._copy_file(self.source, self.target, "")
        fsync_folder(self.target.parent)
        return tuple(sorted(self.parts, key=lambda part: part.path))

    def _copy_folder(self) -> None:
        walk, pending, folders = Walk(), [""], list[tuple[Path, Path]]()
        while pending:
            relative = pending.pop()
            source, target = self.source / relative, self.target / relative
            target.mkdir(mode=_OWNER_MAY)
            folders.append((source, target))
            for entry in walk.entries(source):
                inner = f"{relative}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    pending.append(inner + "/")
                elif entry.is_symlink() and entry.is_dir():
                    (self.target / inner).symlink_to(Path(entry.path).readlink())
                elif entry.is_file():
                    self._copy_file(self.source / inner, self.target / inner, inner)
        if walk.problems:
            where, why = walk.problems[0]
            raise PermissionError(f"{where} {why}")
        for source, target in reversed(folders):
            fsync_folder(target)
            _adopt(target, source.stat(), _OWNER_MAY)

    def _copy_file(self, source: Path, target: Path, name: str) -> None:
        reader = open_regular(source)
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            writer = os.open(target, flags, 0o600)
            try:
                self._copy_bytes(reader, writer, name)
                os.fsync(writer)
                _adopt(writer, os.fstat(reader), 0)
            finally:
                os.close(writer)
        finally:
            os.close(reader)

    def _copy_bytes(self, reader: int, writer: int, name: str) -> None:
        size_bytes = os.fstat(reader).st_size
        cloned = self.reflinks and _clone(reader, writer)
        if cloned:
            self.cloned_bytes += size_bytes
        else:
            self._require_room()
        buffer = bytearray(min(BUFFER_BYTES, max(size_bytes, 1)))
        window, crc32 = Window(writer if cloned else reader, 0, size_bytes, buffer), 0
        for chunk in window.chunks(0, size_bytes):
            crc32 = zlib.crc32(chunk, crc32)
            if not cloned:
                _write_all(writer, chunk)
        self.parts.append(Part(name, size_bytes, crc32))

    def _require_room(self) -> None:
        if self._room_seen:
            return
        room = free_bytes(self.target.parent)
        needed = self.total_bytes - sum(part.size_bytes for part in self.parts)
        if room < needed:
            raise DiskFull(needed, room, self.target.parent)
        self._room_seen = True


def free_bytes(folder: Path) -> int:
    """Say how many bytes may be used in `folder`, less a reserve of 1 % (at most 1 GiB).

    A folder that could not be made is answered for by the first one above it that exists.

    Raises:
        OSError: the file system cannot be asked.

    """
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    status = os.statvfs(there)
    if status.f_blocks == 0:  # some network file systems do not say: then the write will
        return sys.maxsize
    reserve = min(status.f_blocks * status.f_frsize // 100, _RESERVE_LIMIT_BYTES)
    return max(status.f_bavail * status.f_frsize - reserve, 0)


def forget(path: Path, parts: Iterable[Part]) -> None:
    """Let a copy go from the page cache, which the worker needs for its data.

    Raises:
        OSError: it cannot be opened.

    """
    for part in parts:
        descriptor = open_regular(path / part.path if part.path else path)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def damage(path: Path, parts: Iterable[Part]) -> str | None:
    """Compare what lies at `path` with the parts it should have; say what is wrong, or None."""
    for part in parts:
        where = path / part.path if part.path else path
        try:
            with open_window(where) as window:
                size_bytes = window.size_bytes
                if size_bytes != part.size_bytes or window.crc32(0, size_bytes) != part.crc32:
                    return f"{where.name} does not have the bytes that were copied"
        except (OSError, BadBytes) as error:
            return f"{where.name} cannot be read: {error}"
    return None


def _clone(reader: int, writer: int) -> bool:
    try:
        fcntl.ioctl(writer, _FICLONE, reader)
    except OSError:  # another file system, or one that has no reflinks: copy instead
        return False
    return True


def _write_all(descriptor: int, chunk: memoryview) -> None:
    while chunk:
        chunk = chunk[os.write(descriptor, chunk) :]


def _adopt(target: int | Path, status: os.stat_result, least: int) -> None:
    """Give the copy the owner (where we may) and the permissions of the original."""
    with suppress(OSError):  # only root can, and not on every file system; only root's need it
        os.chown(target, status.st_uid, status.st_gid)
    with suppress(OSError):  # FAT and some network shares have no permissions to set
        os.chmod(target, stat.S_IMODE(status.st_mode) & 0o777 | least)  # noqa: PTH101 - may be a descriptor
