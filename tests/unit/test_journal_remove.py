"""A job that is removed leaves nothing of itself in the journal, and all of the others."""

import sqlite3
from contextlib import closing

import pytest

from supervisor.core.causes import Cause
from supervisor.core.events import RunnerStarted
from supervisor.core.item_events import ItemQuarantined, ItemsPlanned
from supervisor.core.machine import step
from supervisor.core.state import JobState
from supervisor.journal import Journal, JournalUnavailable
from tests.golden.journal import make_v1, make_v2

KEPT, GONE = "idle-0a1b2c", "digits-0a1b2c"


@pytest.fixture(params=[make_v1, make_v2])
def journal(request, state_dir):
    """Give a journal with a long story of a training, or of a batch job; another job is idle."""
    opened = Journal.open(state_dir)
    request.param.write(opened)
    yield opened
    opened.close()


def rows(state_dir):
    """How many rows each table has."""
    with closing(sqlite3.connect(state_dir / "journal.sqlite")) as plain:
        names = plain.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return {
            name: plain.execute(f"SELECT count(*) FROM {name}").fetchone()[0]  # noqa: S608 - ours
            for (name,) in names
            if not name.startswith("sqlite_")
        }


def test_every_table_forgets_a_removed_job(journal, state_dir):
    """Whatever table a later version adds: this test fails until its rows go, too."""
    before = rows(state_dir)
    assert before["events"] > 10
    journal.remove_job(GONE)
    after = rows(state_dir)
    assert after == dict.fromkeys(before, 0) | {"jobs": 1}
    assert [one.id for one in journal.jobs()] == [KEPT]
    assert journal.job(GONE) is None
    assert journal.replay(GONE) == []
    assert journal.ledger(GONE).counts().total == 0


def test_the_other_jobs_keep_all_of_theirs(journal):
    """Also a batch job beside it, whose items are in the same tables."""
    state, _ = step(JobState(), RunnerStarted(1, 2, "boot"), 0.0)
    journal.append(KEPT, RunnerStarted(1, 2, "boot"), state)
    ledger = journal.ledger(KEPT)
    assert max(ledger.plan(['"a"', '"b"', '"c"'])) == 3
    journal.append(KEPT, ItemsPlanned(3, 3, 0, 0, 3, 0), state)
    journal.append(KEPT, ItemQuarantined(1, 1, 2, Cause.SIGNAL, "why", "detail"), state)
    ledger.settle([1], 9)
    journal.remember(KEPT, "c", "f", "v")
    story, counts = journal.replay(KEPT), ledger.counts()
    journal.remove_job(GONE)
    assert journal.replay(KEPT) == story
    assert (ledger.counts(), [one.number for one in ledger.quarantined()]) == (counts, [2])
    assert ledger.find(['"c"']) == {'"c"': 3}
    assert journal.recall(KEPT, "c", "f") == "v"


def test_to_remove_what_is_not_there_is_nothing(journal, state_dir):
    """Who finishes a removal that was broken off need not know how far it came."""
    before = rows(state_dir)
    journal.remove_job("nobody-000000")
    assert rows(state_dir) == before


def test_a_removal_that_the_disk_refuses_removes_nothing(journal, state_dir):
    """All of it or nothing: another process that writes just then is waited for, then told."""
    before = rows(state_dir)
    with closing(sqlite3.connect(state_dir / "journal.sqlite")) as other:
        other.execute("BEGIN IMMEDIATE")
        journal._connection.execute("PRAGMA busy_timeout = 1")
        with pytest.raises(JournalUnavailable):
            journal.remove_job(GONE)
    assert rows(state_dir) == before
