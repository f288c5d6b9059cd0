import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.watch.follow import LINE_CAP_BYTES, Chunk, LogFollower, tail


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Path of a log that is not there yet."""
    return tmp_path / "log"


@pytest.fixture
def follower(log: Path) -> Iterator[LogFollower]:
    """Follower of that log."""
    following = LogFollower(log)
    yield following
    following.close()


def append(log: Path, data: bytes) -> None:
    """Write as a worker does, at the end."""
    with log.open("ab") as file:
        file.write(data)


def test_a_file_that_is_not_there_yet_is_an_empty_one(log: Path, follower: LogFollower) -> None:
    """The runner may look before the worker has opened its log."""
    assert follower.read_new() == Chunk([], 0)
    append(log, b"hello\n")
    assert follower.read_new() == Chunk(["hello"], 6)


def test_each_byte_is_reported_once(log: Path, follower: LogFollower) -> None:
    """A second look brings only what was appended since the first."""
    append(log, b"one\ntwo\n")
    assert follower.read_new().lines == ["one", "two"]
    assert follower.read_new() == Chunk([], 0)
    append(log, b"three\n")
    assert follower.read_new() == Chunk(["three"], 6)


def test_a_line_is_held_back_until_it_ends(log: Path, follower: LogFollower) -> None:
    """A write cut in the middle of a line, or of a character, gives one whole line."""
    euro = "€".encode()
    append(log, b"price 5 " + euro[:1])
    assert follower.read_new() == Chunk([], 9)
    assert follower.partial == "price 5 \ufffd"
    append(log, euro[1:] + b"\nnext")
    assert follower.read_new().lines == ["price 5 €"]
    assert follower.partial == "next"


@pytest.mark.parametrize(
    ("data", "lines", "partial"),
    [
        (b"a\r\nb\r\n", ["a", "b"], ""),
        (b"\r 1%\r 2%\r 3%", [" 1%", " 2%"], " 3%"),
        (b"a\n\n\nb\n", ["a", "b"], ""),
        (b"\xff\xfe\n", ["\ufffd\ufffd"], ""),
        (b"nul\x00byte\n", ["nul\x00byte"], ""),
        (b"\n\r\n\r", [], ""),
    ],
)
def test_line_ends_and_garbage(
    log: Path, follower: LogFollower, data: bytes, lines: list[str], partial: str
) -> None:
    """Both line ends count, blank lines do not, and bytes that are not UTF-8 do no harm."""
    append(log, data)
    assert (follower.read_new().lines, follower.partial) == (lines, partial)


def test_a_truncated_file_is_read_from_its_start(log: Path, follower: LogFollower) -> None:
    """A log emptied by its owner starts over, and the held back half line is forgotten."""
    append(log, b"old line\nhalf a li")
    follower.read_new()
    os.truncate(log, 0)
    append(log, b"new\n")
    assert follower.read_new() == Chunk(["new"], 4)


def test_a_replaced_file_is_found(log: Path, follower: LogFollower) -> None:
    """After a delete, what was left in the old file comes first, then the new file."""
    append(log, b"one\n")
    follower.read_new()
    append(log, b"last words\n")
    log.unlink()
    append(log, b"fresh\n")
    assert follower.read_new().lines == ["last words"]
    assert follower.read_new().lines == ["fresh"]


def test_a_deleted_file_is_silence(log: Path, follower: LogFollower) -> None:
    """A log that is gone for good is no error and no sign of progress."""
    append(log, b"one\nhalf")
    follower.read_new()
    log.unlink()
    assert [follower.read_new(), follower.read_new()] == [Chunk([], 0)] * 2


def test_a_writer_whose_file_was_deleted_is_still_followed(
    log: Path, follower: LogFollower
) -> None:
    """Somebody made room with `rm`, or put a folder there: what is written from then on counts."""
    with log.open("ab", buffering=0) as writer:
        writer.write(b"one\n")
        follower.read_new()
        log.unlink()
        assert follower.read_new() == Chunk([], 0)
        writer.write(b"two\n")
        assert follower.read_new().lines == ["two"]
        log.mkdir()
        writer.write(b"three\n")
        assert follower.read_new().lines == ["three"]
    log.rmdir()
    append(log, b"new\n")
    assert follower.read_new().lines == ["new"]


def test_a_flood_is_skipped_to_its_end(log: Path, follower: LogFollower) -> None:
    """Of more than the limit only the end is read, whole lines of it, and the rest is counted."""
    append(log, b"".join(b"step %06d\n" % n for n in range(10_000)))
    chunk = follower.read_new(limit_bytes=104)
    assert chunk.lines == [f"step {n:06d}" for n in range(9992, 10_000)][-len(chunk.lines) :]
    assert (len(chunk.lines), chunk.new_bytes) == (8, 120_000)
    assert chunk.skipped_bytes == 120_000 - 104


def test_a_line_cut_by_a_skip_is_never_shown(log: Path, follower: LogFollower) -> None:
    """Half a line after a skip is dropped, also when its end comes with a later look."""
    append(log, b"step 1200" * 100)
    assert follower.read_new(limit_bytes=10).lines == []
    assert follower.partial == ""
    append(log, b"34\nwhole\nhal")
    assert follower.read_new().lines == ["whole"]
    append(log, b"ves\n")
    assert follower.read_new().lines == ["halves"]


def test_a_line_without_end_is_kept_in_part(log: Path, follower: LogFollower) -> None:
    """The head of an endless line is kept up to the cap, and the line after it is intact."""
    for _ in range(4):
        append(log, b"x" * LINE_CAP_BYTES)
        follower.read_new()
        assert len(follower.partial) == LINE_CAP_BYTES
    append(log, b"end\nnext\n")
    assert follower.read_new().lines == ["x" * LINE_CAP_BYTES, "next"]


def test_long_lines_in_one_read_are_cut_as_well(log: Path, follower: LogFollower) -> None:
    """The cap holds wherever in a read the long line stands."""
    append(log, b"first\n" + b"x" * 100_000 + b"\n" + b"y" * 100_000)
    assert follower.read_new().lines == ["first", "x" * LINE_CAP_BYTES]
    assert follower.partial == "y" * LINE_CAP_BYTES


def test_a_sparse_gigabyte_costs_one_bounded_read(log: Path, follower: LogFollower) -> None:
    """Memory is bounded by the limit, not by what was printed."""
    append(log, b"start\n")
    os.truncate(log, 1 << 30)
    tracemalloc.start()
    chunk = follower.read_new(limit_bytes=1 << 16)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert chunk.new_bytes == 1 << 30
    assert peak < 1 << 20


def test_nothing_new_costs_one_fstat(
    log: Path, follower: LogFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at a silent log neither reads, opens nor looks the path up."""
    append(log, b"one\n")
    follower.read_new()
    calls = []
    real = os.fstat
    monkeypatch.setattr(os, "fstat", lambda fd: calls.append("fstat") or real(fd))
    for name in ("open", "pread", "stat", "read", "lseek"):
        monkeypatch.setattr(os, name, lambda *_a, name=name: calls.append(name))
    assert follower.read_new() == Chunk([], 0)
    assert calls == ["fstat"]


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_refused(
    log: Path, follower: LogFollower, make: Callable[[Path], None]
) -> None:
    """A directory or a fifo in the log's place is an error that names it, not a hang."""
    make(log)
    with pytest.raises(OSError, match="not a regular file"):
        follower.read_new()


def test_closing_keeps_the_place(log: Path, follower: LogFollower) -> None:
    """A follower that was closed goes on where it was."""
    append(log, b"one\n")
    follower.read_new()
    follower.close()
    append(log, b"two\n")
    assert follower.read_new().lines == ["two"]


def test_tail_gives_the_last_lines(log: Path) -> None:
    """The tail of a log is its last lines in order, without a line cut at its start."""
    append(log, b"".join(b"line %03d\n" % n for n in range(100)))
    assert tail(log, lines=2) == ["line 098", "line 099"]
    assert tail(log, limit_bytes=25) == ["line 098", "line 099"]
    assert tail(log, lines=0) == []


def test_tail_shows_what_a_terminal_would(log: Path) -> None:
    """A bar rewritten a thousand times takes one line, so the traceback stays in sight."""
    append(log, b"Traceback\n" + b"\r 10%" * 1000 + b"\r 99%\r\nValueError: no\n")
    assert tail(log, lines=3) == ["Traceback", " 99%", "ValueError: no"]


def test_tail_of_nothing(log: Path) -> None:
    """A missing and an empty log have no lines."""
    assert tail(log) == []
    log.touch()
    assert tail(log) == []


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_tail_of_what_is_no_file(log: Path, make: Callable[[Path], None]) -> None:
    """A fifo in the log's place is refused, not waited for."""
    make(log)
    with pytest.raises(OSError, match="not a regular file"):
        tail(log)


def test_tail_of_one_endless_line(log: Path) -> None:
    """A line longer than the limit is shown by its end."""
    append(log, b"x" * 1000 + b"the end")
    assert tail(log, limit_bytes=7) == ["the end"]
