"""Zip archives that nobody's trainer wrote: hostile, huge in claim, or merely unusual."""

import io
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.checkpoint import zipcheck, zipindex
from supervisor.checkpoint.formats import check_file
from supervisor.checkpoint.verdict import BadBytes, Kind, Level

END = struct.Struct("<4s4H2LH")


def archive(*entries: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Write an archive with Python's own writer."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        for name, content in entries:
            file.writestr(name, content)
    return stream.getvalue()


def reason(tmp_path: Path, content: bytes) -> str | None:
    """Say why a file is refused; None when it is not."""
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    try:
        check_file(path)
    except BadBytes as bad:
        return bad.reason
    return None


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_numpy_like(tmp_path: Path, method: int) -> None:
    """An archive as numpy writes it, compressed or not, is checked; a flipped byte is found."""
    content = archive(("arr_0.npy", bytes(range(256)) * 5000), ("b", b""), method=method)
    (tmp_path / "x.npz").write_bytes(content)

    finding = check_file(tmp_path / "x.npz")

    assert (finding.kind, finding.level) == (Kind.ZIP, Level.VERIFIED)
    for position in (200, 900, 3000):
        damaged = bytearray(content)
        damaged[position] ^= 1
        assert reason(tmp_path, bytes(damaged)) is not None


def test_comment_prefix_and_streaming(tmp_path: Path) -> None:
    """A comment at the end is allowed; a stream's descriptors are checked; a prefix is refused."""
    stream = io.BytesIO()
    stream.seekable = lambda: False  # type: ignore[method-assign] - as a pipe, to get descriptors
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("a", b"a" * 100)
        file.comment = b"PK\x05\x06 is a fine comment"
    content = stream.getvalue()

    assert reason(tmp_path, content) is None
    assert reason(tmp_path, b"#!/bin/sh\n" + content) is not None
    assert reason(tmp_path, content[:45] + b"\0" + content[46:]) is not None


def test_zip64(tmp_path: Path) -> None:
    """Sizes in 64-bit extra fields are read, and compared."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w") as file,
        file.open(zipfile.ZipInfo("a"), "w", force_zip64=True) as entry,
    ):
        entry.write(b"a" * 100)
    content = stream.getvalue()
    assert reason(tmp_path, content) is None

    central = bytearray(content)
    start = content.index(b"PK\x01\x02")
    central[start + 20 : start + 28] = b"\xff" * 8  # says "see the 64-bit field", which is absent
    assert reason(tmp_path, bytes(central)) is not None


def with_end(content: bytes, **changes: int) -> bytes:
    """Change fields of the end record."""
    names = ("magic", "disk", "start_disk", "here", "count", "size", "offset", "comment")
    fields = dict(zip(names, END.unpack(content[-22:]), strict=True))
    return content[:-22] + END.pack(*(fields | changes).values())


@pytest.mark.parametrize(
    "change",
    [
        {"count": 65535, "here": 65535},
        {"count": 2, "here": 2},
        {"count": 0, "here": 0},
        {"here": 7},
        {"disk": 1},
        {"size": 0},
        {"size": 0xFFFFFFFF},
        {"offset": 0},
        {"offset": 0xFFFFFFFF},
        {"comment": 1},
    ],
    ids=str,
)
def test_lying_end_record(tmp_path: Path, change: dict[str, int]) -> None:
    """Whatever the end record claims wrongly is refused."""
    assert reason(tmp_path, with_end(archive(("a", b"a" * 99)), **change)) is not None


def test_empty_archive(tmp_path: Path) -> None:
    """An archive with nothing in it, which a saver killed early leaves, is no checkpoint."""
    assert reason(tmp_path, archive()) == "the archive is empty"


def many_central(count: int, build: Callable[[int], tuple[bytes, int]]) -> bytes:
    """Write one local entry and `count` central records, each with the name and offset built."""
    body = b"a" * 100
    local = struct.pack(
        "<4s5H3L2H", b"PK\x03\x04", 20, 0, 0, 0, 0, zlib.crc32(body), 100, 100, 1, 0
    )
    start = len(local) + 1 + len(body)
    central = bytearray()
    for number in range(count):
        name, offset = build(number)
        central += struct.pack(
            "<4s4B4HL2L5H2L",
            *(b"PK\x01\x02", 20, 0, 20, 0, 0, 0, 0, 0, zlib.crc32(body), 100, 100),
            *(len(name), 0, 0, 0, 0, 0, offset),
        )
        central += name
    here = min(count, 65535)
    end = END.pack(b"PK\x05\x06", 0, 0, here, here, len(central), start, 0)
    return local + b"a" + body + bytes(central) + end


@pytest.mark.timeout(20)
def test_entries_that_share_bytes(tmp_path: Path) -> None:
    """A bomb of 60,000 entries over the same bytes is refused before they are read."""
    content = many_central(60_000, lambda number: (b"%05d" % number, 0))

    assert reason(tmp_path, content) is not None


def test_entry_inside_another(tmp_path: Path) -> None:
    """An entry that lies in another one's content, as in a bomb of the nested kind, is refused."""
    inner = archive(("inner", b"i" * 50))
    inner_local = inner[: inner.index(b"PK\x01\x02")]
    outer = archive(("outer", inner_local))
    start = outer.index(b"PK\x01\x02")
    record = bytearray(inner[len(inner_local) : -22])
    struct.pack_into("<L", record, 42, outer.index(inner_local))
    count = {"here": 2, "count": 2, "size": len(outer) - 22 - start + len(record)}
    both = with_end(outer[:-22] + bytes(record) + outer[-22:], **count)

    assert "overlaps" in (reason(tmp_path, both) or "")


def test_offset_outside(tmp_path: Path) -> None:
    """An entry beyond the file, or inside the table of contents, is refused."""
    for offset in (0xFFFFFFFE, 150, 1):
        assert reason(tmp_path, many_central(1, lambda _, at=offset: (b"a", at))) is not None
    assert reason(tmp_path, many_central(1, lambda _: (b"a", 0))) is None


def test_two_of_one_name(tmp_path: Path) -> None:
    """Readers disagree which of two equal names counts, so such an archive is refused."""
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = archive(("a", b"1"), ("a", b"2"))

    assert "two entries" in (reason(tmp_path, content) or "")


def test_claims_are_bounded_before_memory(tmp_path: Path) -> None:
    """A table of contents of 4 billion entries costs no memory."""
    wide = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 2**32, 2**32, 2**40, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 50, 1)
    end = END.pack(b"PK\x05\x06", 0, 0, 65535, 65535, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    tracemalloc.start()
    try:
        refused = reason(tmp_path, b"PK\x03\x04" + bytes(46) + wide + locator + end)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert refused is not None
    assert peak < 4 << 20


@pytest.mark.timeout(30)
def test_inflating(tmp_path: Path) -> None:
    """Compressed zeros are inflated in constant memory; a lying size is refused at once."""
    content = archive(("a", bytes(64 << 20)), method=zipfile.ZIP_DEFLATED)
    tracemalloc.start()
    try:
        assert reason(tmp_path, content) is None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20

    bomb = bytearray(content)
    for start, position in ((bomb.index(b"PK\x01\x02"), 24), (0, 22)):
        struct.pack_into("<L", bomb, start + position, 0xFFFFFFF0)
    assert "damaged" in (reason(tmp_path, bytes(bomb)) or "")


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More entries than any checkpoint has, or an absurd expansion, is refused."""
    many = archive(*((str(number), b"x") for number in range(20)))
    zeros = archive(("a", bytes(1 << 20)), method=zipfile.ZIP_DEFLATED)
    assert reason(tmp_path, many) is None
    assert reason(tmp_path, zeros) is None
    monkeypatch.setattr(zipindex, "ENTRY_LIMIT", 10)
    monkeypatch.setattr(zipcheck, "_INFLATE_LIMIT_BYTES", 1 << 19)

    assert "more than any checkpoint" in (reason(tmp_path, many) or "")
    assert "expand" in (reason(tmp_path, zeros) or "")


def test_inflating_stops_at_the_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Content that inflates to more than it claims is not inflated to its end."""
    content = bytearray(archive(("a", bytes(64 << 20)), method=zipfile.ZIP_DEFLATED))
    for start, position in ((content.index(b"PK\x01\x02"), 24), (0, 22)):
        struct.pack_into("<L", content, start + position, 10)
    seen = 0

    def count(chunk: bytes, value: int = 0) -> int:
        nonlocal seen
        seen += len(chunk)
        return value

    monkeypatch.setattr(zlib, "crc32", count)

    assert "damaged" in (reason(tmp_path, bytes(content)) or "")
    assert seen < 4 << 20


def test_unknown_method(tmp_path: Path) -> None:
    """An archive compressed in a way we do not read passes by structure, and the reason says so."""
    (tmp_path / "x.zip").write_bytes(archive(("a", b"a" * 100), method=zipfile.ZIP_LZMA))

    assert "structure" in check_file(tmp_path / "x.zip").reason
