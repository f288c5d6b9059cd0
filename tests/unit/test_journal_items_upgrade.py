"""An older journal is given the ledger, whoever opens it, and no reading verb fails by that."""

import multiprocessing
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from supervisor.journal import Journal, JournalUnavailable
from supervisor.journal import journal as module

GOLDEN = Path(__file__).parents[1] / "golden" / "journal" / "v1.sqlite"
FORK = multiprocessing.get_context("fork")
JOB = "digits-0a1b2c"


@pytest.fixture
def old(state_dir: Path) -> Path:
    """Give a state folder with a journal of version 1."""
    state_dir.mkdir()
    shutil.copy(GOLDEN, state_dir / "journal.sqlite")
    return state_dir


@pytest.fixture
def busy(old: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let another process hold the old journal for longer than anybody waits."""
    monkeypatch.setattr(module, "BUSY_TIMEOUT_S", 0.0)
    with closing(sqlite3.connect(old / "journal.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def version_of(folder: Path) -> int:
    """Which version the file says it has."""
    with closing(sqlite3.connect(folder / "journal.sqlite")) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def tables_of(folder: Path) -> list[str]:
    """Everything that the file has been made of."""
    with closing(sqlite3.connect(folder / "journal.sqlite")) as connection:
        rows = connection.execute("SELECT type || ' ' || name FROM sqlite_master ORDER BY 1")
        return [row[0] for row in rows]


@pytest.mark.parametrize("opening", [Journal.open, Journal.open_existing])
def test_an_old_journal_becomes_like_a_new_one(
    old: Path, tmp_path: Path, opening: type[Journal]
) -> None:
    """The same tables, indexes and triggers as one that was made today."""
    opening(old).close()  # type: ignore[arg-type,call-arg] # either way to open it
    Journal.open(tmp_path / "new").close()
    assert tables_of(old) == tables_of(tmp_path / "new")
    assert version_of(old) == module.SCHEMA_VERSION


def upgrading(folder: Path) -> None:
    """Open a journal and use its ledger."""
    with closing(Journal.open(folder)) as journal:
        assert journal.ledger(JOB).counts().total == 0


def test_many_may_upgrade_at_the_same_time(tmp_path: Path) -> None:
    """Whoever comes first does it; the others find it done."""
    for round_ in range(4):
        folder = tmp_path / str(round_)
        folder.mkdir()
        shutil.copy(GOLDEN, folder / "journal.sqlite")
        children = [FORK.Process(target=upgrading, args=(folder,)) for _ in range(5)]
        for child in children:
            child.start()
        for child in children:
            child.join()
        assert [child.exitcode for child in children] == [0] * 5
        assert version_of(folder) == module.SCHEMA_VERSION


@pytest.mark.usefixtures("busy")
def test_reading_goes_on_where_it_cannot_be_upgraded(old: Path) -> None:
    """Everything of the old journal is there; its jobs have no items, as they never had."""
    journal = Journal.open_existing(old)
    assert journal is not None
    with closing(journal):
        assert len(journal.attempts(JOB)) == 5
        ledger = journal.ledger(JOB)
        assert (ledger.counts().total, ledger.todo(), ledger.quarantined()) == (0, (), [])
    assert version_of(old) == 1


@pytest.mark.usefixtures("busy")
def test_writing_needs_the_upgrade(old: Path) -> None:
    """A runner does not begin on tables that are not there."""
    with pytest.raises(JournalUnavailable, match="locked"):
        Journal.open(old)
    assert version_of(old) == 1


def test_an_upgrade_that_breaks_off_leaves_the_old_version(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it or nothing: the file is what it was, and the next one upgrades it."""
    before = tables_of(old)
    whole = module.SQL.lacking

    def torn(version: int) -> list[str]:
        return [*whole(version)[:3], "SELECT raise_no_such_function()"]

    monkeypatch.setattr(module.SQL, "lacking", torn)
    with pytest.raises(Exception, match="no such function"):
        Journal.open(old)
    assert (tables_of(old), version_of(old)) == (before, 1)
    monkeypatch.undo()
    Journal.open(old).close()
    assert version_of(old) == module.SCHEMA_VERSION
