"""The ledger of items: planned once, done for ever, whatever is said of them later."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from supervisor.core.causes import Cause
from supervisor.core.events import Event
from supervisor.core.item_events import ItemQuarantined, ItemsRequeued, ItemsSuspected
from supervisor.core.state import JobState
from supervisor.journal import (
    JobRecord,
    Journal,
    JournalUnavailable,
    JournalUnusable,
    planning,
)
from supervisor.journal.items import Ledger
from supervisor.journal.journal import SQL
from supervisor.journal.planning import Planned
from supervisor.journal.records import Counts, QuarantinedItem

JOB = JobRecord("j-1", "j", "/job", "{}", 1.0, 1.0, "queued", "", None, None, None, None, None)
SUSPECTED = ItemsSuspected(1, 1, (2, 3), Cause.SIGNAL, "killed by signal 11")
QUARANTINED = ItemQuarantined(4, 2, 3, Cause.HANG, "silent for 60 s", "the end of its log")


@pytest.fixture
def journal(state_dir: Path) -> Iterator[Journal]:
    """Open a journal of this test's own, with one job in it."""
    opened = Journal.open(state_dir)
    opened.create_job(JOB)
    yield opened
    opened.close()


@pytest.fixture
def ledger(journal: Journal) -> Ledger:
    """Give the ledger of the job."""
    return journal.ledger(JOB.id)


@pytest.fixture
def happen(journal: Journal) -> Callable[..., None]:
    """Give a way to append events of the job."""

    def append(*events: Event) -> None:
        for event in events:
            journal.append(JOB.id, event, JobState())

    return append


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make few items many: several transactions a plan, several merges."""
    monkeypatch.setattr(planning, "CHUNK", 3)
    monkeypatch.setattr(planning, "MERGE", 7)


def named(*numbers: int) -> list[str]:
    """Items whose names tell their numbers, where they are planned in order."""
    return [f'"{number}.jpg"' for number in numbers]


def planned(ledger: Ledger, items: list[str]) -> Planned:
    """Plan to the end; what it has found."""
    going = ledger.plan(items)
    while True:
        try:
            next(going)
        except StopIteration as ended:
            found: Planned = ended.value
            return found


def states(ledger: Ledger) -> Counts:
    """The counts, which must be those of the rows themselves."""
    rows = ledger._store.rows
    tally = [0] * 5
    statement = "SELECT state, count(*) FROM items GROUP BY state"
    for state, count in ledger._store._connection.execute(statement):
        tally[state] = count
    counts = ledger.counts()
    todo, done, suspect, quarantined, gone = tally
    total = todo + done + suspect + quarantined
    assert counts == Counts(total, done, todo, suspect, quarantined, gone, counts.repeated)
    assert len(ledger.quarantined()) == quarantined
    assert len(list(rows("items_suspect", {"job_id": JOB.id}))) == suspect
    return counts


@pytest.mark.usefixtures("small_steps")
def test_a_plan_numbers_items_in_the_order_of_the_source(ledger: Ledger) -> None:
    """From 1, each once; the source's order is kept, though the index has another."""
    items = named(*range(1, 41))
    assert planned(ledger, items) == Planned(read=40, added=40, gone=0, repeated=0)
    assert ledger.texts(range(1, 41)) == items
    assert ledger.todo() == ((1, 40),)
    assert states(ledger).todo == 40


@pytest.mark.usefixtures("small_steps")
def test_a_plan_is_read_in_steps(ledger: Ledger) -> None:
    """The caller is given the count often, may do other things meanwhile, and sees it grow."""
    counts = []
    for count in ledger.plan(named(*range(1, 12))):
        counts.append(count)
        ledger.settle([], len(counts))
    assert counts == sorted(counts)
    assert [one for one in (3, 6, 9, 11) if one not in counts] == []
    assert ledger.results_bytes() == len(counts)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("distance", [1, 2, 6, 20])
def test_the_same_item_twice_is_one(ledger: Ledger, distance: int) -> None:
    """Near or far apart, known before or new: it is done once, and the repetitions are counted."""
    once = named(*range(1, 25))
    items = [*once[:distance], *once]
    found = planned(ledger, items)
    assert (found.added, found.repeated) == (24, distance)
    numbers = [number for low, high in ledger.todo() for number in range(low, high + 1)]
    assert sorted(ledger.texts(numbers)) == sorted(once)
    assert ledger.find(once) == dict(zip(ledger.texts(numbers), numbers, strict=True))
    again = planned(ledger, items)
    assert (again.added, again.repeated) == (0, distance)
    assert states(ledger).repeated == distance


@pytest.mark.usefixtures("small_steps")
def test_a_new_item_twice_in_a_later_plan_is_one(ledger: Ledger) -> None:
    """Though it came after what was known, and is in the index when it is named again."""
    planned(ledger, named(1, 2, 3))
    found = planned(ledger, named(1, 2, 3, *range(10, 25), *range(10, 25), 2))
    assert found == Planned(read=34, added=15, gone=0, repeated=16)
    assert states(ledger).todo == 18


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("order", ["same", "reversed", "rotated", "with news between"])
def test_a_second_plan_of_the_same_changes_nothing(ledger: Ledger, order: str) -> None:
    """Items keep number and state, in whatever order the source names them."""
    items = named(*range(1, 31))
    planned(ledger, items)
    ledger.settle(range(1, 31, 2), 99)
    news = named(31, 32)
    other = {
        "same": items,
        "reversed": items[::-1],
        "rotated": items[17:] + items[:17],
        "with news between": [*items[:5], news[0], *items[5:], news[1]],
    }[order]
    added = len(other) - len(items)
    assert planned(ledger, other) == Planned(len(other), added, 0, 0)
    assert ledger.texts(range(1, 31)) == items
    assert states(ledger) == Counts(30 + added, 15, 15 + added, 0, 0, 0, 0)
    assert ledger.results_bytes() == 99


@pytest.mark.usefixtures("small_steps")
def test_what_the_source_names_no_more_is_gone_until_it_is_named_again(
    ledger: Ledger, happen: Callable[..., None]
) -> None:
    """Only what was not done goes, also what was set aside; it comes back with its number."""
    planned(ledger, named(*range(1, 10)))
    happen(SUSPECTED, QUARANTINED)
    ledger.settle([1], 10)
    assert planned(ledger, named(8, 9)) == Planned(2, 0, 6, 0)
    assert states(ledger) == Counts(3, 1, 2, 0, 0, 6, 0)
    assert ledger.todo() == ((8, 9),)
    assert planned(ledger, named(*range(3, 10))) == Planned(7, 0, 0, 0)
    assert states(ledger) == Counts(8, 1, 7, 0, 0, 1, 0)
    assert ledger.todo() == ((3, 9),)


@pytest.mark.usefixtures("small_steps")
def test_a_plan_that_was_broken_off_is_repaired_by_the_next(
    ledger: Ledger, journal: Journal
) -> None:
    """Until then nobody sees its items, nothing is gone, and what was known is as it was."""
    planned(ledger, named(1, 2))
    for steps in range(1, 14):
        going = ledger.plan(named(*range(3, 30)))
        for _ in range(steps):
            next(going)
        going.close()
        with closing(Journal.open(journal.path.parent)) as other:
            left = other.ledger(JOB.id)
            assert left.counts().gone == 0
            assert left.todo()[0][0] == 1
            assert left.todo()[-1][1] == left.counts().total
            assert sorted(left.find(named(*range(1, 30))).values()) == list(
                range(1, left.counts().total + 1)
            )
    assert planned(ledger, named(*range(1, 30))).gone == 0
    assert sorted(ledger.texts(range(1, 30))) == sorted(named(*range(1, 30)))
    assert states(ledger).todo == 29


def test_a_source_that_fails_leaves_the_ledger_as_it_was(ledger: Ledger) -> None:
    """Its error comes through, nothing is gone, and the connection is free again."""
    planned(ledger, named(1, 2))

    def broken() -> Iterator[str]:
        yield from named(2, 3)
        raise OSError("the network is down")

    with pytest.raises(OSError, match="network"):
        planned(ledger, broken())  # type: ignore[arg-type] # any iterable will do
    assert states(ledger) == Counts(2, 0, 2, 0, 0, 0, 0)
    planned(ledger, named(1, 2))


def test_long_items_are_taken_in_smaller_steps(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded by characters, too, not only by their count."""
    monkeypatch.setattr(planning, "CHUNK_LENGTH", 50)
    items = [f'"{"x" * 40}{number}"' for number in range(4)]
    assert list(ledger.plan(items))[:2] == [2, 4]


def test_a_done_item_is_never_anything_else(
    ledger: Ledger, journal: Journal, happen: Callable[..., None]
) -> None:
    """No event, no plan, and no statement of any program can take an acknowledgement back."""
    planned(ledger, named(1, 2, 3))
    ledger.settle([1, 2, 3], 30)
    happen(SUSPECTED, QUARANTINED, ItemsRequeued((1, 2, 3), "a person"))
    planned(ledger, named(9))
    with closing(sqlite3.connect(journal.path)) as stranger, stranger:
        stranger.execute("UPDATE items SET state = 0 WHERE state = 1")
    assert states(ledger) == Counts(4, 3, 1, 0, 0, 0, 0)
    assert ledger.todo() == ((4, 4),)
    assert ledger.quarantined() == []


def test_items_become_suspect_and_are_quarantined(
    ledger: Ledger, happen: Callable[..., None]
) -> None:
    """Each is in one state; what is told of a quarantined one is what its event said."""
    planned(ledger, named(1, 2, 3))
    happen(SUSPECTED)
    assert ledger.suspects() == (2, 3)
    assert ledger.todo() == ((1, 1),)
    happen(QUARANTINED)
    (one,) = ledger.quarantined()
    expected = ("hang", "silent for 60 s", "the end of its log", one.at_s, 4)
    assert one == QuarantinedItem(3, '"3.jpg"', *expected)
    assert states(ledger) == Counts(3, 0, 1, 1, 1, 0, 0)


def test_an_innocent_suspect_is_settled(ledger: Ledger, happen: Callable[..., None]) -> None:
    """Done is done, also for a suspect and for one that was quarantined too early."""
    planned(ledger, named(1, 2, 3))
    happen(SUSPECTED, QUARANTINED)
    ledger.settle([3, 2], 20)
    assert states(ledger) == Counts(3, 2, 1, 0, 0, 0, 0)


def test_a_person_has_items_tried_again(ledger: Ledger, happen: Callable[..., None]) -> None:
    """They are todo, and no longer listed; a second quarantine tells the second reason."""
    planned(ledger, named(1, 2, 3))
    happen(SUSPECTED, QUARANTINED, ItemsRequeued((1, 2, 3), "supervise retry"))
    assert states(ledger) == Counts(3, 0, 3, 0, 0, 0, 0)
    happen(QUARANTINED, ItemQuarantined(9, 1, 3, Cause.EXIT_CODE, "again"), SUSPECTED)
    assert states(ledger).suspect == 2
    happen(QUARANTINED, ItemQuarantined(9, 1, 3, Cause.EXIT_CODE, "again"))
    assert [(one.reason, one.attempt) for one in ledger.quarantined()] == [("again", 9)]
    planned(ledger, named(1))
    happen(ItemsRequeued((2, 3), "supervise retry"))
    assert states(ledger).gone == 2  # the source has them no more: there is nothing to try


def test_quarantined_items_are_listed_in_order_and_up_to_a_limit(
    ledger: Ledger, happen: Callable[..., None]
) -> None:
    """By number, not by when it happened."""
    planned(ledger, named(*range(1, 6)))
    for number in (5, 2, 4):
        happen(ItemQuarantined(1, 1, number, Cause.SIGNAL, "why"))
    assert [one.number for one in ledger.quarantined()] == [2, 4, 5]
    assert [one.number for one in ledger.quarantined(limit=2)] == [2, 4]


def test_todo_is_told_in_ranges(ledger: Ledger) -> None:
    """Inclusive, ascending, and in parts for whoever wants few at a time."""
    planned(ledger, named(*range(1, 11)))
    ledger.settle([1, 4, 5, 10], 1)
    assert ledger.todo() == ((2, 3), (6, 9))
    assert ledger.todo(limit=1) == ((2, 3),)
    assert ledger.todo(after=3) == ((6, 9),)
    assert ledger.todo(after=7, limit=5) == ((8, 9),)
    ledger.settle(range(1, 11), 2)
    assert ledger.todo() == ()


def test_texts_come_in_the_order_asked_for(ledger: Ledger) -> None:
    """Also repeated ones; a number that there is not is an error, not a gap."""
    planned(ledger, named(1, 2, 3))
    assert ledger.texts([3, 1, 3]) == named(3, 1, 3)
    assert ledger.texts([]) == []
    with pytest.raises(KeyError, match="4"):
        ledger.texts([1, 4])


def test_items_are_found_by_their_text(ledger: Ledger) -> None:
    """Whatever is in it; what is no item is left out."""
    odd = ['"\\udce9.jpg"', '{"a":[1,"\\u00e4"]}', '"it\'s"', "null", '""']
    planned(ledger, odd)
    assert ledger.find([*odd[::-1], '"other"']) == {
        text: number for number, text in enumerate(odd, 1)
    }


def test_a_job_that_was_never_planned_has_nothing(journal: Journal) -> None:
    """A command job, or one that nobody has heard of: zeros, and no row is made by looking."""
    for ledger in (journal.ledger(JOB.id), journal.ledger("nobody")):
        assert ledger.counts() == Counts(0, 0, 0, 0, 0, 0, 0)
        assert (ledger.todo(), ledger.suspects(), ledger.quarantined()) == ((), (), [])
        assert (ledger.results_bytes(), ledger.find(['"a"'])) == (0, {})
    with closing(sqlite3.connect(journal.path)) as connection:
        assert connection.execute("SELECT count(*) FROM batches").fetchone() == (0,)


def test_jobs_do_not_share_items(journal: Journal, happen: Callable[..., None]) -> None:
    """The same item in two jobs is two, each with its own number and state."""
    journal.create_job(
        JobRecord("j-2", "k", "/job", "{}", 1.0, 1.0, "queued", "", None, None, None, None, None)
    )
    first, second = journal.ledger(JOB.id), journal.ledger("j-2")
    planned(first, named(1, 2, 3))
    planned(second, named(3))
    second.settle([1], 5)
    happen(QUARANTINED)
    assert first.counts() == Counts(3, 0, 2, 0, 1, 0, 0)
    assert second.counts() == Counts(1, 1, 0, 0, 0, 0, 0)
    assert second.find(named(3)) == {named(3)[0]: 1}
    assert (first.results_bytes(), second.results_bytes()) == (0, 5)


def test_settling_is_all_or_nothing(ledger: Ledger, journal: Journal) -> None:
    """While another holds the file, nothing is settled and it is said so; afterwards all is."""
    planned(ledger, named(1, 2))
    journal._connection.execute("PRAGMA busy_timeout = 0")
    with closing(sqlite3.connect(journal.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalUnavailable, match="locked"):
            ledger.settle([1, 2], 20)
        other.execute("ROLLBACK")
    assert (ledger.counts().done, ledger.results_bytes()) == (0, 0)
    ledger.settle([1, 2], 20)
    assert (ledger.counts().done, ledger.results_bytes()) == (2, 20)


def test_items_and_the_length_of_their_results_are_settled_as_one(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Items that are done without their lines being counted would lose them at the next cut."""
    planned(ledger, named(1, 2))
    monkeypatch.setitem(SQL.named, "settle_results", "UPDATE no_such_table SET x = 1")
    with pytest.raises(JournalUnusable, match="no_such_table"):
        ledger.settle([1, 2], 20)
    monkeypatch.undo()
    assert (ledger.counts().done, ledger.results_bytes()) == (0, 0)
