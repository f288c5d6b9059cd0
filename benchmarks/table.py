"""Several contestants beside each other, and what is promised of one of them.

Owns the form of the results of the batch benchmarks; measures nothing. A missed promise says so and
the program still ends with 0: a busy machine is no failure of the code.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks.figures import MET, MISSED, PLAIN

Cell = str | float | None
EXACT_BELOW = 10


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under their heads; a number is shown with as many places as a reader can use."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]


@dataclass(frozen=True, slots=True)
class Promise:
    """A number in `unit` with the least or the most that it may be; None was not measured."""

    name: str
    measured: float | None
    unit: str = ""
    least: float | None = None
    most: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether it is kept; nothing where it was not measured."""
        if self.measured is None:
            return PLAIN
        enough = self.least is None or self.measured >= self.least
        few = self.most is None or self.measured <= self.most
        return MET if enough and few else MISSED

    @property
    def target(self) -> str:
        """The limits in words."""
        least = [] if self.least is None else [f">= {_text(self.least)} {self.unit}".rstrip()]
        most = [] if self.most is None else [f"<= {_text(self.most)} {self.unit}".rstrip()]
        return ", ".join(least + most)


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """How many times theirs is ours; None where one of both was not measured."""
    return ours / theirs if ours is not None and theirs else None


def show(
    title: str, tables: Sequence[Table], promises: Sequence[Promise], *, as_json: bool
) -> None:
    """Print the result of one benchmark."""
    if as_json:
        judged = [asdict(one) | {"verdict": one.verdict or None} for one in promises]
        listed = [asdict(one) for one in tables]
        print(json.dumps({"benchmark": title, "tables": listed, "promises": judged}, indent=2))
        return
    print(f"\n{title}")
    for table in tables:
        _print(table)
    if promises:
        heads = ("promise", "measured", "target", "verdict", "note")
        rows = [(one.name, _measured(one), one.target, one.verdict, one.note) for one in promises]
        _print(Table("", heads, rows))
    sys.stdout.flush()


def _measured(one: Promise) -> str:
    return "not measured" if one.measured is None else f"{_text(one.measured)} {one.unit}".rstrip()


def _print(table: Table) -> None:
    heads = [table.heads] if any(table.heads) else []
    rows = [*heads, *(tuple(map(_text, row)) for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print(f"  {table.title}" if table.title else "")
    for row in rows:
        print("    " + "  ".join(map(str.ljust, row, widths)).rstrip())


def _text(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return cell
    if float(cell).is_integer():
        return f"{cell:,.0f}"
    return f"{cell:.3f}" if abs(cell) < EXACT_BELOW else f"{cell:,.1f}"
