"""Clerks that lie: what their users' jobs may cost everybody else, which is nothing."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from supervisor.daemon import lookup
from supervisor.daemon.api.answers import encoded
from supervisor.daemon.clerk_answers import checked
from supervisor.daemon.contracts import Peer, Shelf, ShelfUnavailable
from supervisor.queue.model import Entry, Needs, Phase

ANN, MALLORY = Peer(1001, 1001, "ann"), Peer(1002, 1002, "mallory")


def started(job: str, owner: Peer) -> Entry:
    """A job of whose state its owner's clerk is asked."""
    return Entry(
        id=job,
        seq=1,
        uid=owner.uid,
        name="net",
        folder="/x",
        needs=Needs(),
        submitted_s=1.0,
        queued_s=1.0,
        phase=Phase.STARTED,
    )


class Clerks:
    """Everybody's shelf; each clerk says of its jobs what it was told to."""

    def __init__(self, rows: Mapping[int, Mapping[str, Any]]) -> None:
        self._rows = rows

    def of(self, uid: int) -> Shelf:
        """One user's."""
        return Told(self._rows[uid])

    def known(self) -> Sequence[int]:
        """All of them."""
        return list(self._rows)

    async def close(self) -> None:
        """Nothing is open."""


class Told:
    """A shelf with one row, looked at as every answer of a clerk is."""

    path = Path("/")

    def __init__(self, row: Mapping[str, Any]) -> None:
        self._row = row

    async def ask(self, question: str, arguments: Mapping[str, Any]) -> Any:
        """The row, whatever is asked."""
        return checked(question, arguments, [self._row])

    async def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize(
    "lie", [{"id": "evil"}, {"id": "evil", "state": {"a": 1}}, {"id": "anns"}, {}]
)
def test_a_bad_row_is_its_users_trouble_alone(lie: dict[str, Any]) -> None:
    """The others' rows are theirs, and of the liar's jobs the queue says what it knows."""
    anns, evil = started("anns", ANN), started("evil", MALLORY)
    true = lookup.plain_document(anns) | {"step": 44}
    shelves = Clerks({ANN.uid: true, MALLORY.uid: lie})
    found = asyncio.run(lookup.documents(shelves, [anns, evil]))
    assert found == {"anns": true, "evil": lookup.plain_document(evil)}


def test_nothing_unknown_comes_into_a_list() -> None:
    """However deep or large it is, a row has its own fields and no others."""
    evil = started("evil", MALLORY)
    row = lookup.plain_document(evil)
    shelves = Clerks({MALLORY.uid: row | {"deep": nested(960), "large": "x" * (1 << 20)}})
    assert asyncio.run(lookup.documents(shelves, [evil])) == {"evil": row}


def nested(depth: int) -> Any:
    """A list in a list in a list."""
    found: Any = []
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.parametrize("first", [0, float("nan")])
def test_what_is_nested_without_end_is_refused(first: float) -> None:
    """In words, and not as a mistake of the daemon's."""
    with pytest.raises(ShelfUnavailable, match="too deeply"):
        encoded({"first": first, "zz": nested(5000)})
