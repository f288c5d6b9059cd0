"""The list of quarantined items for people and programs: `quarantine.jsonl` beside the results.

Owns the form of its lines; which items are quarantined stands in the journal. Invariant: the file
is there if and only if there is such an item, and is always whole.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from supervisor.batch.published import published, withdrawn


class Quarantined(Protocol):
    """An item that is not tried again by itself, as the journal keeps it."""

    @property
    def item(self) -> str:
        """Its canonical JSON text."""

    @property
    def cause(self) -> str:
        """One of the closed list of causes."""

    @property
    def reason(self) -> str:
        """Why, in words."""

    @property
    def detail(self) -> str:
        """Its traceback, or the end of its worker's log."""

    @property
    def attempt(self) -> int:
        """In which attempt it failed last."""


def write_quarantine(path: Path, items: Iterable[Quarantined]) -> int:
    """Write the list anew and return how many are in it; with none the file is removed.

    A line is `{"item": ..., "cause": ..., "reason": ..., "detail": ..., "attempt": N}`, ASCII.

    Raises:
        OSError: the disk refuses; the list that was there stands.
    """
    stream = iter(items)
    first = next(stream, None)
    if first is None:
        withdrawn(path)
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with published(path) as file:
        file.write(_line(first))
        count = 1
        for one in stream:
            file.write(_line(one))
            count += 1
    return count


def _line(one: Quarantined) -> bytes:
    facts = {"cause": one.cause, "reason": one.reason, "detail": one.detail, "attempt": one.attempt}
    return f'{{"item": {one.item}, {json.dumps(facts)[1:]}\n'.encode("ascii")
