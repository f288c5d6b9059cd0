"""Checking a zip archive, torch's above all: every byte of every entry, streamed.

Owns the check of entries against their headers and checksums; never unpickles, never holds an
entry in memory. torch's own loader compares no checksum, so a flipped byte in a weight passes it
unseen; here it does not. Format: PKWARE APPNOTE 6.3; torch's writer is miniz with 64-byte
alignment in the extra field and sizes in a trailing data descriptor. Invariant: after
`check_archive` returns, every entry's content has the checksum that was stored when it was written,
unless the archive stores none at all (then only its structure was checked, and the reason says so).
"""

import struct
import zlib
from collections.abc import Iterable
from typing import Final

from supervisor.checkpoint.reading import Window
from supervisor.checkpoint.verdict import BadBytes, Finding, Kind, Level
from supervisor.checkpoint.zipindex import (
    ENTRY_LIMIT,
    LOCAL_MAGIC,
    End,
    Entry,
    find_end,
    read_index,
    shown,
)

_LOCAL: Final = struct.Struct("<4s5H3L2H")
_DESCRIPTOR_MAGIC: Final = b"PK\x07\x08"
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _HAS_DESCRIPTOR = 0x1, 0x8
_MAX32: Final = 0xFFFFFFFF
_DEFLATE_RATIO: Final = 1032  # the format cannot do better
_INFLATE_LIMIT_BYTES: Final = 16 << 30
_BOMB_RATIO: Final = 100


def check_archive(window: Window) -> Finding:
    """Check one archive that fills the window.

    Raises:
        BadBytes: why it cannot be used.
        OSError: it cannot be read.

    """
    kind, count, has_checksums = _check(window)
    what = "entry has its checksum" if count == 1 else "entries have their checksums"
    if has_checksums:
        return Finding(kind, Level.VERIFIED, f"{count} {what}")
    return Finding(kind, Level.VERIFIED, f"structure of {count} entries checked, no checksums")


def check_archives(window: Window) -> Finding:
    """Check archives written one after the other, as torch's distributed checkpoints (`.distcp`).

    Raises:
        BadBytes: the bytes are not archives from the first to the last.
        OSError: it cannot be read.

    """
    stop, count, all_checked = window.size_bytes, 0, True
    while stop > 0:
        count += 1
        if count > ENTRY_LIMIT:
            raise BadBytes("it holds more archives than any checkpoint has", Kind.TORCH_ZIP)
        start = find_end(window.part(0, stop)).base
        all_checked &= _check(window.part(start, stop - start))[2]
        stop = start
    what = "checksums" if all_checked else "structure (it stores no checksums)"
    return Finding(Kind.TORCH_ZIP, Level.VERIFIED, f"{count} archives in a row: {what} checked")


def _check(window: Window) -> tuple[Kind, int, bool]:
    """Check one archive; give its kind, the number of entries, whether checksums were compared."""
    end = find_end(window)
    entries = read_index(window, end)
    kind = _kind(entries)
    try:
        return kind, len(entries), _check_entries(window, entries, end)
    except BadBytes as error:
        raise BadBytes(error.reason, kind) from error


def _kind(entries: Iterable[Entry]) -> Kind:
    names = {entry.name for entry in entries}
    pickles = [name for name in names if name.endswith(b"/data.pkl")]
    if not names:
        raise BadBytes("the archive is empty", Kind.ZIP)
    if not pickles:
        return Kind.ZIP
    prefix = min(pickles, key=len)[: -len(b"data.pkl")]
    if prefix + b"version" not in names and prefix + b".data/version" not in names:
        raise BadBytes("the torch archive has no version entry", Kind.TORCH_ZIP)
    return Kind.TORCH_ZIP


def _check_entries(window: Window, entries: list[Entry], end: End) -> bool:
    """Check all entries; tell whether all of them were compared with a checksum."""
    has_checksums = any(entry.crc32 for entry in entries)
    readable = all(_is_readable(entry) for entry in entries)
    inflated = sum(entry.size_bytes for entry in entries if entry.method != _STORED)
    if inflated > _INFLATE_LIMIT_BYTES and inflated > _BOMB_RATIO * window.size_bytes:
        raise BadBytes(f"it would expand to {inflated} bytes: not a checkpoint")
    for entry, limit in zip(
        entries, [*(one.offset for one in entries[1:]), end.start], strict=True
    ):
        _check_entry(window, entry, limit, has_checksums=has_checksums)
    return has_checksums and readable


def _check_entry(window: Window, entry: Entry, limit: int, *, has_checksums: bool) -> None:
    """Check one entry, which must end before `limit`, where the next one begins."""
    start = _check_local_header(window, entry)
    stop = start + entry.packed_bytes
    if stop > limit:
        raise BadBytes(f"the archive's entry {shown(entry.name)} overlaps the one after it")
    if has_checksums and _is_readable(entry):
        crc32 = _content_crc32(window, entry, start)
        if crc32 != entry.crc32:
            raise BadBytes(
                f"the bytes of {shown(entry.name)} do not have their checksum "
                f"(stored {entry.crc32:08x}, found {crc32:08x})"
            )
    if entry.flags & _HAS_DESCRIPTOR:
        _check_descriptor(window, entry, stop, limit)


def _check_local_header(window: Window, entry: Entry) -> int:
    """Compare an entry's own header with the table of contents; give where its content starts."""
    raw = window.read(entry.offset, _LOCAL.size)
    magic, _, flags, method, _, _, crc32, packed, size, *lengths = _LOCAL.unpack(raw)
    name_bytes, extra_bytes = int(lengths[0]), int(lengths[1])
    agrees = (
        magic == LOCAL_MAGIC
        and (flags, method) == (entry.flags, entry.method)
        and window.read(entry.offset + _LOCAL.size, name_bytes) == entry.name
    )
    late = (0,) if flags & _HAS_DESCRIPTOR else ()  # written before these were known
    for own, listed in ((packed, entry.packed_bytes), (size, entry.size_bytes)):
        agrees = agrees and own in (listed, _MAX32, *late)
    if not agrees or crc32 not in (entry.crc32, *late):
        raise BadBytes(f"the header of {shown(entry.name)} contradicts the table of contents")
    return entry.offset + _LOCAL.size + name_bytes + extra_bytes


def _check_descriptor(window: Window, entry: Entry, start: int, limit: int) -> None:
    """Compare the sizes that follow the content, in any of the four forms writers use."""
    wanted = (entry.crc32, entry.packed_bytes, entry.size_bytes)
    raw = window.read(start, min(24, limit - start))
    signed = _DESCRIPTOR_MAGIC if raw.startswith(_DESCRIPTOR_MAGIC) else b""
    for form in ("<L2Q", "<L2L"):
        if form == "<L2L" and max(wanted[1:]) > _MAX32:
            continue
        expected = signed + struct.pack(form, *wanted)
        if raw.startswith(expected):
            return
    raise BadBytes(f"the sizes after {shown(entry.name)} contradict the table of contents")


def _is_readable(entry: Entry) -> bool:
    return not entry.flags & _ENCRYPTED and entry.method in (_STORED, _DEFLATED)


def _content_crc32(window: Window, entry: Entry, start: int) -> int:
    if entry.method == _STORED:
        if entry.packed_bytes != entry.size_bytes:
            raise BadBytes(f"the two sizes of {shown(entry.name)} contradict each other")
        return window.crc32(start, entry.size_bytes)
    return _inflated_crc32(window, entry, start)


def _inflated_crc32(window: Window, entry: Entry, start: int) -> int:
    bad = BadBytes(f"the compressed bytes of {shown(entry.name)} are damaged")
    if entry.size_bytes > entry.packed_bytes * _DEFLATE_RATIO:
        raise bad
    inflater, crc32, size_bytes = zlib.decompressobj(-zlib.MAX_WBITS), 0, 0
    try:
        for chunk in window.chunks(start, entry.packed_bytes):
            pending: bytes | memoryview = chunk
            while len(pending) and not inflater.eof:
                plain = inflater.decompress(pending, len(window.buffer))
                pending = inflater.unconsumed_tail
                crc32, size_bytes = zlib.crc32(plain, crc32), size_bytes + len(plain)
                if size_bytes > entry.size_bytes:
                    raise bad
        while not inflater.eof and (plain := inflater.decompress(b"", len(window.buffer))):
            crc32, size_bytes = zlib.crc32(plain, crc32), size_bytes + len(plain)
    except zlib.error as error:
        raise bad from error
    if size_bytes != entry.size_bytes or not inflater.eof:
        raise bad
    return crc32
