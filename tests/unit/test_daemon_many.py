"""Which jobs are meant, among very many of them: the same as ever, and without a look at each."""

import asyncio
import random
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.daemon import intake, lookup
from supervisor.daemon.contracts import Conflict, NoSuchJob, Peer, Unacceptable
from supervisor.daemon.roster import Roster
from supervisor.queue.model import Entry, Phase
from supervisor.queue.store import Queue
from tests.unit.daemon_world import (
    ANN,
    BOB,
    in_a_hurry,  # noqa: F401 - the fixture is used by name
    world,
)
from tests.unit.queue_entries import submitted

WORDS = ["a", "ab", "abc", "b", "b-1", "a-1", "ab-", "ab-00000", "", "zz", "g", "h", "a-0000aa-1"]


@pytest.fixture
def roster(tmp_path: Path) -> Roster:
    """One without entries."""
    return Roster(Queue.open(tmp_path))


def fill(roster: Roster, seed: int) -> None:
    """Jobs of two users, with names, groups and ids that are beginnings of each other."""
    dice = random.Random(seed)
    for seq in range(1, 60):
        name = dice.choice(["a", "ab", "abc", "b"])
        group = dice.choice([None, None, "g", "h", "a"])
        folder = dice.choice(["/x", "/y"])
        fields = {"id": f"{name}-{seq % 7:06x}-{seq}", "name": name, "group": group}
        uid = dice.choice([ANN.uid, BOB.uid])
        roster.add([submitted(seq, uid=uid, folder=folder, **fields)])
    for one in list(roster.all()):
        if dice.random() < 0.5:
            roster.change(replace(one, phase=Phase.ENDED), "Ended")
    gone = [one.id for one in roster.all() if dice.random() < 0.2]
    roster.forget(gone)
    back = [one for one in roster.all() if one.phase is Phase.ENDED][:3]
    roster.change_all([(replace(one, phase=Phase.WAITING), "Resumed", {}) for one in back])


def found(roster: Roster, peer: Peer, text: str) -> str:
    """Which job is meant, or the words that refuse."""
    try:
        return lookup.find(roster, peer, text).id
    except (Conflict, NoSuchJob) as error:
        return str(error)


def looked_for(entries: list[Entry], peer: Peer, text: str) -> str:
    """The same by a look at every entry, as the rules are written."""
    named = [one for one in entries if one.name == text]
    if not named and text and not re.search(r".-[0-9a-f]{6}(-[0-9]+)?$", text):
        named = [one for one in entries if one.id.startswith(text)]
    meant = [one for one in named if one.uid == peer.uid] or named
    exact = [one for one in entries if one.id == text]
    if exact or not meant:
        return exact[0].id if exact else f"the queue has no job {text}"
    if len({(one.name, one.folder, one.uid) for one in meant}) > 1:
        ids = ", ".join(one.id for one in meant[-8:])
        return f"{text} may mean several jobs; say which is meant: {ids}"
    return meant[-1].id


def all_of_them(_roster: Roster) -> Iterable[Entry]:
    """In place of a list of all jobs, where nobody is to ask for one."""
    pytest.fail("every job was looked at")


def waited_for(entries: list[Entry], peer: Peer, text: str) -> tuple[str, ...]:
    """What a word of `after` means, by a look at every entry."""
    own = [one for one in entries if one.uid == peer.uid]
    if text in {one.id for one in own}:
        return (text,)
    named = [one for one in own if text in {one.name, one.group}]
    named = named or [one for one in own if text and one.id.startswith(text)][-1:]
    going = [one.id for one in named if one.phase is not Phase.ENDED]
    return tuple(going or [one.id for one in named[-1:]])


@pytest.mark.parametrize("seed", range(5))
def test_a_word_means_what_a_look_at_every_job_would_find(roster: Roster, seed: int) -> None:
    """Ids, names, groups and beginnings, one's own and of others, also after some are gone."""
    fill(roster, seed)
    everything = list(roster.all())
    for text in [*WORDS, *(one.id for one in everything), *(one.id[:7] for one in everything)]:
        for peer in (ANN, BOB, Peer(1, 1, "root", admin=True)):
            assert found(roster, peer, text) == looked_for(everything, peer, text)


def test_nobody_looks_at_every_job(roster: Roster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name, a beginning and what there is not are found without."""
    roster.add([submitted(seq, name=f"net{seq}", uid=ANN.uid) for seq in range(1, 200)])
    monkeypatch.setattr(Roster, "all", all_of_them)
    assert found(roster, ANN, "net7") == "job-7"
    assert found(roster, BOB, "job-19").startswith("job-19 may") is False
    assert found(roster, ANN, "zzz") == "the queue has no job zzz"


def test_what_is_forgotten_is_found_by_no_word(roster: Roster) -> None:
    """Nor does it hide what comes after it."""
    roster.add([submitted(1, uid=ANN.uid, group="g"), submitted(2, uid=ANN.uid, id="jot-2")])
    assert found(roster, ANN, "jo").endswith("jot-2")
    roster.forget(["jot-2", "job-1"])
    for text in ("jo", "job", "g", "jot-2"):
        assert found(roster, ANN, text) == f"the queue has no job {text}"
    roster.add([submitted(3, uid=ANN.uid, id="jot-2")])
    assert found(roster, ANN, "jo") == "jot-2"
    assert roster.names.going(ANN.uid, "g") == []
    assert roster.names.newest(ANN.uid, "job") == "jot-2"


@pytest.mark.usefixtures("hurried")
def test_jobs_wait_for_what_a_look_at_every_job_would_find(tmp_path: Path) -> None:
    """Those in the queue before, and those of the same request."""

    async def story() -> None:
        async with world(tmp_path, cpus=1) as here:
            done = await here.ended(ANN, "a")
            await here.submit(ANN, "a", "ab", "abc", group="g")
            await here.submit(BOB, "a", "zz")
            for text in ["a", "ab", "abc", "ab-", "g", done, done[:-1]]:
                before = list(here.daemon.roster.all())
                asked = [here.wanted(name) | {"after": [text, text]} for name in ("b", "c")]
                await here.daemon.submit(ANN, asked, {})
                made = list(here.daemon.roster.all())[-2:]
                assert [one.after for one in made] == [waited_for(before, ANN, text)] * 2
            words = [["n1"], ["n1", "n"], ["g", "n"]]
            asked = [here.wanted(f"n{at + 2}", after=one) for at, one in enumerate(words)]
            await here.daemon.submit(ANN, [here.wanted("n1", group="g"), *asked], {})
            *before, first, second, third, last = here.daemon.roster.all()
            assert second.after == (first.id,)
            assert third.after == (first.id, second.id)
            assert last.after == (*waited_for([*before, first], ANN, "g"), third.id)
            with pytest.raises(Unacceptable, match="no job of yours"):
                await here.submit(ANN, "c", after=["zz"])

    asyncio.run(story())


@pytest.mark.usefixtures("hurried")
def test_nobody_looks_at_every_job_that_may_be_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name, a group, a beginning and an id are found without."""
    monkeypatch.setattr(Roster, "all", all_of_them)

    async def story() -> None:
        async with world(tmp_path) as here:
            (net,) = await here.submit(ANN, "net", group="g")
            assert await here.submit(ANN, "next", after=["net", "g", net[:-1], net])

    asyncio.run(story())


@pytest.mark.usefixtures("hurried")
def test_a_request_may_not_name_any_number_of_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted over all its jobs; none of them is accepted then."""
    monkeypatch.setattr(intake, "MOST_TEXTS", 5)

    async def story() -> None:
        async with world(tmp_path) as here:
            await here.submit(ANN, "x1", "x2", "x3")
            names = ["x1", "x2", "x3"]
            with pytest.raises(Unacceptable, match=r"may name 5 jobs together\. Submit fewer"):
                await here.submit(ANN, "one", "two", after=names)
            assert len(list(here.daemon.roster.all())) == 3
            assert await here.submit(ANN, "one", after=names)

    asyncio.run(story())
