"""The file of results: acknowledged lines are never lost, others never stay."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from supervisor.batch import results as module
from supervisor.batch.results import Results, ResultsProblem, ResultsShort

LINE = b'{"item":"a.jpg","result":{"n":1}}\n'
OTHER = b'{"item":7,"result":null}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give a file in a folder that is not there yet."""
    return tmp_path / "out" / "results.jsonl"


@pytest.fixture
def written(path: Path) -> Iterator[Results]:
    """Open a file with one line in it, settled."""
    results = Results(path, 0)
    results.add('"a.jpg"', b'{"n":1}')
    results.sync()
    yield results
    results.close()


def test_a_line_is_item_and_result(path: Path) -> None:
    """JSON as it was given, in order; the length is what is to be settled."""
    with closing(Results(path, 0)) as results:
        assert results.sync() == 0
        results.add('"a.jpg"', b'{"n":1}')
        results.add("7", b"null")
        assert path.read_bytes() == b""
        assert results.sync() == len(LINE + OTHER)
        assert results.sync() == len(LINE + OTHER)
    assert path.read_bytes() == LINE + OTHER


@pytest.mark.parametrize("rest", [b"", OTHER, OTHER[:10], b"\0\0\0"])
def test_what_was_never_settled_is_cut_off(path: Path, written: Results, rest: bytes) -> None:
    """A runner died after writing and before settling: its items run again, their lines go."""
    with path.open("ab") as file:
        file.write(rest)
    with closing(Results(path, len(LINE))) as results:
        assert path.read_bytes() == LINE
        results.add("7", b"null")
        assert results.sync() == len(LINE + OTHER)
    assert path.read_bytes() == LINE + OTHER


def test_unsettled_lines_of_a_first_run_are_cut_off(path: Path, written: Results) -> None:
    """Nothing was acknowledged: the file begins anew."""
    with closing(Results(path, 0)):
        assert path.read_bytes() == b""


@pytest.mark.parametrize("left", [0, 1, len(LINE) - 1])
def test_a_file_that_lost_settled_lines_is_refused(path: Path, written: Results, left: int) -> None:
    """It is left alone, and the message says what is missing and what to do."""
    os.truncate(path, left)
    with pytest.raises(
        ResultsShort, match=r"results\.jsonl .* some of them are lost.*Put the file"
    ):
        Results(path, len(LINE))
    assert path.stat().st_size == left


def test_a_file_that_was_removed_is_refused(path: Path, written: Results) -> None:
    """Also with its whole folder; nothing is made in its place."""
    path.unlink()
    for _ in range(2):
        with pytest.raises(ResultsShort, match=rf"is missing, but {len(LINE)} bytes"):
            Results(path, len(LINE))
        assert not path.exists()
        path.parent.rmdir() if path.parent.exists() else None


def test_a_file_that_was_edited_is_refused(path: Path, written: Results) -> None:
    """Where the settled bytes do not end with a line, cutting there would tear one."""
    path.write_bytes(LINE.replace(b'"n"', b'"number"') * 3)
    with pytest.raises(ResultsProblem, match="do not end with a whole line"):
        Results(path, len(LINE))


@pytest.mark.parametrize("deed", ["removed", "replaced"])
def test_a_file_taken_away_while_it_is_written_is_noticed(
    path: Path, written: Results, deed: str
) -> None:
    """Before anything is acknowledged that is in no file any more."""
    path.unlink()
    if deed == "replaced":
        path.write_bytes(LINE)
    written.add("7", b"null")
    with pytest.raises(ResultsShort, match="removed or replaced while the job ran"):
        written.sync()


def test_another_writer_is_noticed(path: Path, written: Results) -> None:
    """Its bytes are not written over."""
    with path.open("ab") as file:
        file.write(b"note\n")
    written.add("7", b"null")
    with pytest.raises(ResultsProblem, match=rf"has {len(LINE) + 5} bytes instead of {len(LINE)}"):
        written.sync()
    assert path.read_bytes() == LINE + b"note\n"


THINGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link": (lambda path: path.symlink_to("/etc/hostname"), "is a symbolic link"),
    "a broken link": (lambda path: path.symlink_to("nowhere"), "is a symbolic link"),
    "a folder": (lambda path: path.mkdir(), "is a folder, not a file"),
    "a pipe": (os.mkfifo, "is a pipe, not a file"),
}


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("acknowledged", [0, 5])
def test_what_is_no_file_is_refused(path: Path, thing: str, acknowledged: int) -> None:
    """In words, at once, and it is left alone."""
    make, words = THINGS[thing]
    path.parent.mkdir()
    make(path)
    with pytest.raises(ResultsProblem, match=rf"{words}.*`out`"):
        Results(path, acknowledged)


def test_a_file_where_the_folder_should_be_is_refused(path: Path) -> None:
    """The message names the one that is in the way."""
    path.parent.write_text("in the way")
    with pytest.raises(ResultsProblem, match=r"out is no folder\. Move it away"):
        Results(path, 0)


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_full_disk_loses_and_repeats_nothing(
    path: Path, written: Results, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """What was added is kept; when there is room, each line is in the file once."""
    real = getattr(os, call)
    refusals = iter([True, True])

    def full(*arguments: object) -> object:
        if call == "pwrite":
            file, content, at = arguments
            real(file, content[:7], at)  # type: ignore[index] # as a disk does that fills up
        if next(refusals, False):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(module.os, call, full)
    written.add("7", b"null")
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            written.sync()
        written.add("7", b"null")
    assert written.sync() == len(LINE + OTHER * 3)
    assert path.read_bytes() == LINE + OTHER * 3


def test_a_write_may_be_cut_short(
    path: Path, written: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest follows."""
    real = os.pwrite
    monkeypatch.setattr(module.os, "pwrite", lambda file, content, at: real(file, content[:3], at))
    written.add("7", b"null")
    assert written.sync() == len(LINE + OTHER)
    assert path.read_bytes() == LINE + OTHER


def test_closing_twice_is_harmless(written: Results, path: Path) -> None:
    """And what was not synced is not in the file."""
    written.add("7", b"null")
    written.close()
    written.close()
    assert path.read_bytes() == LINE
