"""Plain text for a terminal: aligned tables, labelled paragraphs, a little colour.

Owns how text is laid out; knows nothing of jobs. Whatever a worker printed passes `printable`
first, so that no escape sequence of a log ever steers the reader's terminal. Colour is written
always and taken out by `click.echo` where it is not wanted (a pipe, NO_COLOR).
"""

import os
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import click

GAP = "  "
INDENT = "  "
RESET = "\x1b[0m"  # with which click.style ends
LABEL_WIDTH = 10
READABLE = 100  # a paragraph wider than this is hard to read, however wide the terminal is
NARROWEST = 12  # a column is not shortened below this


class Cut(Enum):
    """Which part of a text is given up when it does not fit."""

    NEVER = 0
    HEAD = 1
    TAIL = 2


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table. At most one of a table's columns should be `cut`."""

    title: str
    right: bool = False
    cut: Cut = Cut.NEVER


def columns() -> int | None:
    """Width of the terminal; None where output goes elsewhere and nothing may be cut."""
    if not sys.stdout.isatty():
        return None
    given = os.environ.get("COLUMNS", "")
    if given.isdigit() and int(given):
        return int(given)
    return os.get_terminal_size(sys.stdout.fileno()).columns or None


def width(text: str) -> int:
    """How many cells a text takes, its colour left out."""
    bare = click.unstyle(text) if "\x1b" in text else text
    if bare.isascii():
        return len(bare)
    wide = sum(unicodedata.east_asian_width(one) in "WF" for one in bare)
    return len(bare) + wide - sum(map(bool, map(unicodedata.combining, bare)))


def shortened(text: str, room: int, cut: Cut) -> str:
    """The text in at most `room` cells, an ellipsis where something was cut."""
    if cut is Cut.NEVER or width(text) <= room:
        return text
    parts = list(text)
    while parts and width("".join(parts)) > max(room - 1, 0):
        parts.pop(0 if cut is Cut.HEAD else -1)
    kept = "".join(parts)
    return f"…{kept}" if cut is Cut.HEAD else f"{kept}…"


def fitted(line: str) -> str:
    """The line in the width of the terminal."""
    room = columns()
    return line if room is None else shortened(line, room, Cut.TAIL)


def table(heads: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """The rows below their titles, aligned, in the width of the terminal."""
    titles = [click.style(head.title, dim=True) for head in heads]
    widths = [max(map(width, cells)) for cells in zip(titles, *rows, strict=True)]
    room = columns()
    if room is not None:
        over = sum(widths) + len(GAP) * (len(heads) - 1) - room
        for index, head in enumerate(heads):
            if head.cut is not Cut.NEVER and over > 0:
                widths[index] = max(widths[index] - over, NARROWEST)
    return "\n".join(_line(heads, widths, cells) for cells in (titles, *rows))


def _line(heads: Sequence[Column], widths: Sequence[int], cells: Sequence[str]) -> str:
    placed = []
    for head, room, cell in zip(heads, widths, cells, strict=True):
        text = shortened(cell, room, head.cut)
        pad = " " * (room - width(text))
        placed.append(pad + text if head.right else text + pad)
    return GAP.join(placed).rstrip()


def labelled(label: str, text: str, more: Sequence[str] = ()) -> str:
    """A paragraph behind its label, wrapped on a terminal; each of `more` begins a line."""
    left = len(INDENT) + LABEL_WIDTH
    lines = [line for part in (text, *more) for line in _wrapped(part, left)]
    first = INDENT + click.style(label.ljust(LABEL_WIDTH), dim=True) + lines[0]
    return "\n".join([first, *((" " * left + line).rstrip() for line in lines[1:])])


def paragraph(text: str) -> str:
    """A paragraph without a label, indented, wrapped on a terminal."""
    return "\n".join(INDENT + line for line in _wrapped(text, len(INDENT)))


def _wrapped(text: str, left: int) -> list[str]:
    from textwrap import wrap  # noqa: PLC0415 - `ps` needs none

    room = columns()
    if room is None or width(text) <= min(room, READABLE) - left:
        return [text]
    # textwrap counts escape sequences: colour, which only a beginning has, comes back last.
    begin, reset, _ = text.rpartition(RESET)
    bare = click.unstyle(text)
    lines = wrap(
        bare,
        max(min(room, READABLE) - left, NARROWEST),
        subsequent_indent=" " * (len(bare) - len(bare.lstrip())),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [lines[0].replace(click.unstyle(begin + reset), begin + reset, 1), *lines[1:]]


_COLOURS = {
    "running": "cyan",
    "backing_off": "yellow",
    "stopping": "yellow",
    "stopped": "yellow",
    "holding": "magenta",
    "succeeded": "green",
    "completed": "green",
    "failed": "red",
    "give_up": "red",
    "hold": "magenta",
}


def word(name: str) -> str:
    """A word of the contract (a state, a cause, a decision) in its colour, if it has one."""
    colour = _COLOURS.get(name)
    return click.style(name, fg=colour) if colour else name
