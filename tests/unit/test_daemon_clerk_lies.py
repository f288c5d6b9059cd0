"""Clerks that lie: what their users' jobs may cost everybody else, which is nothing."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from supervisor.daemon import clerk_answers, clerk_process, lookup, shelves
from supervisor.daemon.api.answers import encoded
from supervisor.daemon.clerk_answers import checked
from supervisor.daemon.clerk_process import ClerkProcess, Post, unshelter
from supervisor.daemon.contracts import Peer, Shelf, ShelfUnavailable
from supervisor.daemon.shelves import ClerkShelf, Losses
from supervisor.queue.model import Entry, Needs, Phase
from supervisor.spec.job import NAME_PATTERN
from supervisor.spec.queue_sections import is_group
from tests.unit.test_daemon_shelves import EXAMINED

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
    clerks = Clerks({ANN.uid: true, MALLORY.uid: lie})
    found = asyncio.run(lookup.documents(clerks, [anns, evil]))
    assert found == {"anns": true, "evil": lookup.plain_document(evil)}


def test_nothing_unknown_comes_into_a_list() -> None:
    """However deep or large it is, a row has its own fields and no others."""
    evil = started("evil", MALLORY)
    row = lookup.plain_document(evil)
    clerks = Clerks({MALLORY.uid: row | {"deep": nested(960), "large": "x" * (1 << 20)}})
    assert asyncio.run(lookup.documents(clerks, [evil])) == {"evil": row}


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


BAD_NAMES = ["", "a b", "../x", "a/b", "-a", ".a", "a\n", "\x1b[2J", "a\x9b", "\u0661", "x" * 65, 7]
BAD_KEYS = ["", " ", "a\nb", "\x1b]0;owned\x07", "k\x9b2J", "\u202e", "x" * 257, ["k"]]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("name", one) for one in [*BAD_NAMES, None]),
        *(("group", one) for one in BAD_NAMES),
        *(("key", one) for one in BAD_KEYS),
        *(("after", [one]) for one in ["", "a b", "\x1b[2J", "a\n", "x" * 97, None]),
        ("folder", "not/absolute"),
        ("claims", ["not/absolute"]),
    ],
)
def test_a_clerk_names_nothing_that_a_job_file_could_not(field: str, value: Any) -> None:
    """An id that nobody can type, or that steers a terminal, comes into no queue."""
    with pytest.raises(ShelfUnavailable, match=field):
        checked("examine", {}, EXAMINED | {field: value})


def test_what_a_job_file_may_say_a_clerk_may() -> None:
    """Keys are anything that can be printed."""
    good = {"name": "a.b_c-1", "group": "x" * 64, "key": "n\u00e4chtlich 1/2", "after": ["x" * 96]}
    assert checked("examine", {}, EXAMINED | good) == EXAMINED | good


@pytest.mark.parametrize("name", [*BAD_NAMES[:-1], "a", "0", "a.b_c-", "x" * 64])
def test_names_are_those_of_job_files(name: str) -> None:
    """The pattern is written down twice, as the schema is too much to load for a daemon."""
    fits = clerk_answers._NAME.fullmatch(name) is not None
    assert fits == is_group(name)
    assert fits == (re.search(NAME_PATTERN.replace("$", r"\Z"), name) is not None)


HELLO = r"""printf '{"hello":1}\n' >&0; read -r asked; """
ANSWER = r"""printf '{"id":1,"answer":[]}\n' >&0; """


@pytest.mark.parametrize(
    "more",
    [
        ANSWER,
        r"""printf '{"id":2,"answer":[]}\n' >&0; """,
        r"""printf '{"hello":1}\n' >&0; """,
        r"""printf '{"id":0}\n' >&0; """,
    ],
)
def test_a_clerk_that_says_what_nobody_asked_is_ended(tmp_path: Path, more: str) -> None:
    """At its first such word, whether anybody asks for something or not."""
    says = HELLO + ANSWER + more + "exec sleep 600"

    async def heard() -> None:
        clerk = ClerkProcess(Post(tmp_path, None, ("/bin/sh", "-c", says)))
        try:
            await clerk.connect()
            assert await clerk.ask("records", {}) == []
            await asyncio.wait_for(clerk._gone.wait(), 20)
            assert clerk.is_lost
        finally:
            await clerk.end()

    asyncio.run(heard())


def test_losses_make_the_next_clerk_wait() -> None:
    """Longer and longer, up to a minute; after a good while all is forgotten."""
    losses, now_s, waits = Losses(), 1000.0, []
    for _ in range(10):
        losses.add(now_s)
        waits.append(losses.left_s(now_s))
        now_s += waits[-1]
        assert losses.left_s(now_s) == 0
    assert waits == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    losses.add(now_s + shelves.FORGIVEN_S)
    assert losses.left_s(now_s + shelves.FORGIVEN_S) == 0


def test_no_clerk_is_begun_in_haste(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks meanwhile is told so, and no process is begun for that."""
    monkeypatch.setattr(shelves, "PAUSE_S", 1000.0)
    monkeypatch.setattr(shelves, "LONGEST_PAUSE_S", 1000.0)
    begun = []

    def prepare() -> Post:
        begun.append(1)
        return Post(tmp_path, None, ("/bin/sh", "-c", HELLO + "exit 3"))

    async def asked() -> None:
        shelf = ClerkShelf(tmp_path, prepare)
        try:
            for told in ("exit code 3", "again and again", "again and again"):
                with pytest.raises(ShelfUnavailable, match=told):
                    await shelf.ask("records", {})
        finally:
            await shelf.close()

    asyncio.run(asked())
    assert len(begun) == 2


@pytest.mark.parametrize(("before", "after"), [("-900\n", "0"), ("0\n", "0\n"), ("200\n", "200\n")])
def test_a_clerk_is_not_sheltered_as_the_daemon_is(tmp_path: Path, before: str, after: str) -> None:
    """Of what would be taken first nothing is spared, and one that has gone is no trouble."""
    rank = tmp_path / "77/oom_score_adj"
    rank.parent.mkdir()
    rank.write_text(before)
    unshelter(77, tmp_path)
    unshelter(78, tmp_path)
    assert rank.read_text() == after


def test_every_clerk_loses_the_daemons_rank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its start, and not by itself."""
    ranked: list[int] = []
    monkeypatch.setattr(clerk_process, "unshelter", ranked.append)

    async def begun() -> int:
        clerk = ClerkProcess(Post(tmp_path, None, ("/bin/sh", "-c", HELLO)))
        await clerk.end()
        return clerk.pid

    assert [asyncio.run(begun())] == ranked
