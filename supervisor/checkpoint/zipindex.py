"""The table of contents of a zip archive, read without trusting it.

Owns the end record and the central directory; reads no entry. Format: PKWARE APPNOTE 6.3, with
zip64. Invariant: every `Entry` lies inside the window and no two share a byte; counts and sizes are
bounded before anything is allocated for them.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from supervisor.checkpoint.reading import Window
from supervisor.checkpoint.verdict import BadBytes

LOCAL_MAGIC: Final = b"PK\x03\x04"
END_MAGIC: Final = b"PK\x05\x06"
_CENTRAL_MAGIC: Final = b"PK\x01\x02"
_END64_MAGIC: Final = b"PK\x06\x06"
_LOCATOR_MAGIC: Final = b"PK\x06\x07"
_END: Final = struct.Struct("<4s4H2LH")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_LOCATOR: Final = struct.Struct("<4sLQL")
_CENTRAL: Final = struct.Struct("<4s4B4HL2L5H2L")
_MAX16: Final = 0xFFFF
_MAX32: Final = 0xFFFFFFFF
_ZIP64_EXTRA: Final = 1
_WIDE_BYTES: Final = 8
_DOS_FOLDER: Final = 0x10
ENTRY_LIMIT: Final = 250_000  # the largest real checkpoints have some ten thousand
_DIRECTORY_LIMIT_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as the central directory describes it; offsets count from the archive's start."""

    name: bytes
    flags: int
    method: int
    crc32: int
    packed_bytes: int
    size_bytes: int
    offset: int


@dataclass(frozen=True, slots=True)
class End:
    """Where the central directory lies: from `start`, `size_bytes` long, with `count` entries.

    `base` is where the archive itself begins in the window: 0 but for archives in a row.
    """

    base: int
    start: int
    size_bytes: int
    count: int


def has_end(window: Window) -> bool:
    """Tell whether the bytes end as a zip archive does, whatever they begin with."""
    try:
        find_end(window)
    except BadBytes:
        return False
    return True


def find_end(window: Window) -> End:
    """Read the end record, which must close the window.

    Raises:
        BadBytes: there is none, or it contradicts itself.

    """
    for tail_bytes in (_END.size, _END.size + _MAX16):  # first as if there were no comment
        tail_start = max(window.size_bytes - tail_bytes, 0)
        tail = window.read(tail_start, window.size_bytes - tail_start)
        position = tail.rfind(END_MAGIC)
        while position >= 0:
            if len(tail) - position >= _END.size:
                fields = _END.unpack_from(tail, position)
                if position + _END.size + fields[7] == len(tail):
                    return _end(window, tail_start + position, fields)
            position = tail.rfind(END_MAGIC, 0, position + len(END_MAGIC) - 1)
    raise BadBytes("the archive's table of contents is missing: the file was cut off")


def _end(window: Window, record: int, fields: tuple[int, ...]) -> End:
    _, disk, directory_disk, here, count, size_bytes, offset, _ = fields
    locator, claimed = record - _LOCATOR.size, None
    if locator >= 0 and window.read(locator, len(_LOCATOR_MAGIC)) == _LOCATOR_MAGIC:
        _, disk64, claimed, disks = _LOCATOR.unpack(window.read(locator, _LOCATOR.size))
        record = locator - _END64.size
        magic, length, _, _, disk, directory_disk, here, *wide = _END64.unpack(
            window.read(record, _END64.size)
        )
        if magic != _END64_MAGIC or disk64 or disks != 1 or length + 12 != _END64.size:
            raise BadBytes("the archive's 64-bit end record is damaged")
        narrow = ((count, _MAX16), (size_bytes, _MAX32), (offset, _MAX32))
        if any(old not in (new, top) for (old, top), new in zip(narrow, wide, strict=True)):
            raise BadBytes("the archive's two end records contradict each other")
        count, size_bytes, offset = wide
    if disk or directory_disk or here != count:
        raise BadBytes("the archive claims to be spread over several files, or its end is damaged")
    base = record - size_bytes - offset
    if base < 0 or claimed not in (None, record - base):
        raise BadBytes("the archive's table of contents is not where its end record says")
    return End(base, base + offset, size_bytes, count)


def read_index(window: Window, end: End) -> list[Entry]:
    """Read the central directory of an archive that fills the window, in order of offset.

    Raises:
        BadBytes: it is damaged, too large to be true, or its entries overlap.

    """
    if end.base:
        raise BadBytes("the archive's table of contents is not where its end record says")
    if end.count > ENTRY_LIMIT or end.size_bytes > _DIRECTORY_LIMIT_BYTES:
        raise BadBytes(f"the archive claims {end.count} entries, more than any checkpoint has")
    if end.count * _CENTRAL.size > end.size_bytes:
        raise BadBytes("the archive's table of contents is shorter than its count of entries")
    entries = sorted(_entries(window.read(end.start, end.size_bytes), end), key=lambda e: e.offset)
    if len({entry.name for entry in entries}) != len(entries):
        raise BadBytes("the archive has two entries of one name")
    return entries


def _entries(raw: bytes, end: End) -> Iterator[Entry]:
    position = 0
    for _ in range(end.count):
        if position + _CENTRAL.size > len(raw):
            raise BadBytes("the archive's table of contents is cut off")
        fields = _CENTRAL.unpack_from(raw, position)
        flags, method, crc32, packed, size = fields[5], fields[6], fields[9], fields[10], fields[11]
        name_len, extra_len, comment_len, disk, attributes, offset = (
            *fields[12:16],
            *fields[17:19],
        )
        if fields[0] != _CENTRAL_MAGIC:
            raise BadBytes("the archive's table of contents is damaged")
        extra_start = position + _CENTRAL.size + name_len
        name = raw[position + _CENTRAL.size : extra_start]
        extra = raw[extra_start : extra_start + extra_len]
        position = extra_start + extra_len + comment_len
        if position > len(raw):
            raise BadBytes("the archive's table of contents is cut off")
        size, packed, offset = _wide(extra, (size, packed, offset))
        entry = Entry(name, flags, method, crc32, packed, size, offset)
        if disk not in (0, _MAX16) or offset + packed > end.start:
            raise BadBytes(f"the archive's entry {shown(name)} lies outside the file")
        if attributes & _DOS_FOLDER and size:
            raise BadBytes(f"the archive's entry {shown(name)} is marked as a folder, with content")
        yield entry
    if position != len(raw):
        raise BadBytes("the archive's table of contents has bytes that belong to no entry")


def _wide(extra: bytes, narrow: tuple[int, int, int]) -> tuple[int, int, int]:
    """Replace saturated 32-bit fields by those of the zip64 extra field, in its fixed order."""
    if _MAX32 not in narrow:
        return narrow
    body, values = _extra_field(extra, _ZIP64_EXTRA), []
    for value in narrow:
        if value != _MAX32:
            values.append(value)
        elif len(body) >= _WIDE_BYTES:
            values.append(int.from_bytes(body[:_WIDE_BYTES], "little"))
            body = body[_WIDE_BYTES:]
        else:
            raise BadBytes("the archive's table of contents lacks a 64-bit size")
    return values[0], values[1], values[2]


def _extra_field(extra: bytes, wanted: int) -> bytes:
    position = 0
    while position + 4 <= len(extra):
        tag, length = struct.unpack_from("<2H", extra, position)
        if tag == wanted:
            return extra[position + 4 : position + 4 + length]
        position += 4 + length
    return b""


def shown(name: bytes) -> str:
    """Make an entry's name printable."""
    return repr(name[:80].decode("utf-8", "replace"))
