"""Layout of plain text."""

import os
import pty
import time
from pathlib import Path

import click
import pytest

from supervisor.cli import text
from supervisor.cli.text import Column, Cut, labelled, paragraph, shortened, table, width
from supervisor.views import times
from supervisor.views.plain import printable


def test_columns_are_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colour and wide characters take the place that they take on a terminal."""
    monkeypatch.setattr(text, "columns", lambda: None)
    rows = [(click.style("ab", fg="red"), "1"), ("日本", "22"), ("e\u0301", "333")]

    drawn = click.unstyle(table((Column("NAME"), Column("N", right=True)), rows))
    assert drawn.splitlines() == ["NAME    N", "ab      1", "日本   22", "e\u0301     333"]


@pytest.mark.parametrize(
    ("cut", "expected"),
    [(Cut.NEVER, "abcdefgh"), (Cut.HEAD, "…efgh"), (Cut.TAIL, "abcd…")],
)
def test_shortened(cut: Cut, expected: str) -> None:
    """The part that matters stays; what fits is left alone."""
    assert shortened("abcdefgh", 5, cut) == expected
    assert shortened("abcde", 5, cut) == "abcde"
    assert width(shortened("日本日本", 4, Cut.TAIL)) <= 4


@pytest.mark.parametrize("room", [1, 20, 80])
def test_a_table_gives_way_in_one_column(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A narrow terminal costs the path its beginning, never another column a character."""
    monkeypatch.setattr(text, "columns", lambda: room)
    drawn = table((Column("A"), Column("PATH", cut=Cut.HEAD)), [("value", "/a/" * 30 + "end")])

    last = drawn.splitlines()[-1]
    assert last.startswith("value  …")
    assert last.endswith("end")
    assert width(last) <= max(room, len("value  ") + text.NARROWEST)


def test_a_paragraph_is_wrapped_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrapped lines stand below the first; in a pipe a paragraph is one line; paths stay whole."""
    words = f"{click.style('cause', bold=True)}: {'word ' * 20}/a/very/long/path/that/stays/whole"
    monkeypatch.setattr(text, "columns", lambda: 40)
    lines = click.unstyle(labelled("label", words, ["  indented", ""])).splitlines()

    assert lines[0].startswith("  label     cause: word")
    assert all(line.startswith(" " * 12) for line in lines[1:] if line)
    assert all(len(line) <= 40 for line in lines if "/" not in line)
    assert lines[-1] == " " * 14 + "indented"
    assert "/a/very/long/path/that/stays/whole" in paragraph(words)
    monkeypatch.setattr(text, "columns", lambda: None)
    assert len(labelled("label", words).splitlines()) == 1


def test_printable() -> None:
    """One line, no control character, no escape sequence; ordinary text is left alone."""
    assert printable("a\x1b[31mb\x1b[0m\tc\nd\x07") == "ab c d"
    assert printable("naïve 日本 … /tmp/x") == "naïve 日本 … /tmp/x"


def test_the_width_of_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """COLUMNS, else the terminal itself; nonsense in COLUMNS is ignored; a pipe has no width."""
    leader, follower = pty.openpty()
    try:
        with os.fdopen(follower, "w") as terminal:
            monkeypatch.setattr("sys.stdout", terminal)
            monkeypatch.setenv("COLUMNS", "33")
            assert text.columns() == 33
            for nonsense in ("", "0", "-3", "wide"):
                monkeypatch.setenv("COLUMNS", nonsense)
                assert text.columns() in {None, os.get_terminal_size(leader).columns}
    finally:
        os.close(leader)
    with Path(os.devnull).open("w") as nowhere:
        monkeypatch.setattr("sys.stdout", nowhere)
        assert text.columns() is None


@pytest.mark.parametrize(
    ("past_s", "said"),
    [
        (-100, "just now"), (0.2, "just now"), (59.9, "59 s ago"), (60, "1 min ago"),
        (3599, "59 min ago"), (3600, "1 h ago"), (86_400 * 12, "12 d ago"),
    ],
)  # fmt: skip
def test_ago(past_s: float, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One unit is enough; a clock that was set back is no news from the future."""
    monkeypatch.setattr(times, "now", lambda: 1e9)

    assert times.ago(1e9 - past_s).replace("60 s", "59 s") == said


def test_instants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Today's without the date, others with it; milliseconds never say 1000; UTC for machines."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(times, "now", lambda: 1_772_366_400.0)

    assert times.clock(1_772_366_400.0) == "12:00:00"
    assert times.clock(1_772_280_000.0) == "2026-02-28 12:00:00"
    assert times.clock(None) == "-"
    assert times.instant(1_772_366_400.9996) == "12:00:01.000"
    assert times.iso(1_772_366_400.25) == "2026-03-01T12:00:00.250Z"
    assert times.iso(None) is None
    assert times.lasting(None) == "-"
