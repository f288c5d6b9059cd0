"""Figures and their targets, as a table for people or as JSON.

Owns the form of every benchmark's result; measures nothing. A figure that misses its target says so
and the program still ends with 0: a busy machine is no failure of the code.
"""

import argparse
import json
import signal
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

MISSED, MET, PLAIN = "MISS", "pass", ""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number in `unit`; `limit` is the most it may be, None where it only compares.

    `ratio` is against what `beside` names, measured in the same run.
    """

    name: str
    measured: float
    unit: str
    limit: float | None = None
    ratio: float | None = None
    beside: str = ""
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether the target is met, where there is one."""
        if self.limit is None:
            return PLAIN
        return MET if self.measured <= self.limit else MISSED


@dataclass(frozen=True, slots=True)
class Spread:
    """The shape of a series: median, 5th and 95th percentile, in the unit of its values."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of at least one value."""
        ordered = sorted(values)
        last = len(ordered) - 1
        return cls(
            statistics.median(ordered), ordered[round(last * 0.05)], ordered[round(last * 0.95)]
        )


def arguments(about: str | None) -> argparse.Namespace:
    """The command line that every benchmark has. Ended by SIGTERM, it tidies up all the same."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a figure")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    return parser.parse_args()


def show(title: str, figures: Sequence[Figure], *, as_json: bool) -> None:
    """Print the result of one benchmark."""
    if as_json:
        listed = [asdict(one) | {"verdict": one.verdict or None} for one in figures]
        print(json.dumps({"benchmark": title, "figures": listed}, indent=2))
        return
    heads = ("figure", "measured", "target", "ratio", "verdict", "note")
    rows = [heads, *map(_row, figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    print(f"\n{title}")
    for row in rows:
        print("  " + "  ".join(map(str.ljust, row, widths)).rstrip())
    sys.stdout.flush()


def _row(figure: Figure) -> tuple[str, ...]:
    return (
        figure.name,
        _amount(figure.measured, figure.unit),
        "" if figure.limit is None else f"<= {_amount(figure.limit, figure.unit)}",
        "" if figure.ratio is None else f"{figure.ratio:.2f} x {figure.beside}".rstrip(),
        figure.verdict,
        figure.note,
    )


def _amount(value: float, unit: str) -> str:
    digits = 3 if abs(value) < 10 else 1  # noqa: PLR2004 - as many places as a reader can use
    return f"{value:.{digits}f} {unit}".rstrip()
