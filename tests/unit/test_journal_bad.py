"""A journal, or a disk, that refuses: a message a person can act on, and nothing lost.

The tests of a full and of a read-only disk mount a tmpfs of their own, which takes root; elsewhere
they are skipped and say so.
"""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.core.events import CheckpointVerified
from supervisor.core.state import JobState
from supervisor.journal import JobRecord, Journal, JournalError, JournalUnavailable, JournalUnusable
from supervisor.journal.errors import translate

JOB = JobRecord("j-1", "j", "/job", "{}", 1.0, 1.0, "queued", "", None, None, None, None, None)
EVENTS = 40


def saved(at: int) -> CheckpointVerified:
    """A checkpoint that verified, with a path that takes some room."""
    return CheckpointVerified(at, "c" * 400, "zip", "crc", 10, 2.0, pinned=True)


def fill(state_dir: Path, events: int = EVENTS) -> Path:
    """Make a journal with some events in it, closed; its file."""
    with closing(Journal.open(state_dir)) as journal:
        journal.create_job(JOB)
        for at in range(events):
            journal.append(JOB.id, saved(at), JobState())
        return journal.path


def read_all(state_dir: Path) -> None:
    """Open a journal and read what is in it."""
    with closing(Journal.open(state_dir)) as journal:
        journal.replay(JOB.id)
        journal.checkpoints(JOB.id)


def refusal(state_dir: Path, kind: type[JournalError]) -> str:
    """What opening and reading this journal is answered with; no file may change by it."""
    path = state_dir / "journal.sqlite"
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(kind) as raised:
        read_all(state_dir)
    assert (path.read_bytes() if path.is_file() else None) == before
    message = str(raised.value)
    assert str(state_dir) in message
    return message


def overwritten(path: Path, at: int, junk: bytes) -> None:
    """Write over a part of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(junk)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a text file": lambda path: path.write_text("my notes\n" * 100),
    "an image": lambda path: path.write_bytes(b"\x89PNG\r\n" + os.urandom(5000)),
    "junk behind the header": lambda path: overwritten(path, 100, b"\xff" * 30_000),
    "a torn header": lambda path: overwritten(path, 0, b"\0" * 100),
    "cut in half": lambda path: os.truncate(path, path.stat().st_size // 2 + 100),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_and_left_alone(state_dir: Path, damage: str) -> None:
    """The message names the file and how to go on without it; not a byte is changed."""
    DAMAGE[damage](fill(state_dir))
    message = refusal(state_dir, JournalUnusable)
    assert f"mv {state_dir}/journal.sqlite {state_dir}/journal.sqlite.damaged" in message
    assert "Nothing was changed" in message


@pytest.mark.parametrize("version", [0, 1])
def test_another_program_s_database_is_left_alone(state_dir: Path, version: int) -> None:
    """Neither our tables nor our settings are put into it."""
    path = fill(state_dir)
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("CREATE TABLE notes (x)")
    message = refusal(state_dir, JournalUnusable)
    assert f"{path} is another program's database. Nothing was changed" in message


def test_a_newer_journal_is_refused_and_left_alone(state_dir: Path) -> None:
    """A downgrade loses nothing: it says which versions these are, and what to do."""
    path = fill(state_dir)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 3")
    message = refusal(state_dir, JournalUnusable)
    assert "newer supervise (schema 3; this program knows 2)" in message
    assert "Upgrade supervise" in message


def test_an_empty_file_becomes_a_journal(state_dir: Path) -> None:
    """What a full disk left of the very first run is no damage."""
    state_dir.mkdir()
    (state_dir / "journal.sqlite").touch()
    with closing(Journal.open(state_dir)) as journal:
        assert journal.jobs() == []


def test_a_folder_in_its_place_is_refused(state_dir: Path) -> None:
    """Not a traceback: SQLite cannot open it, and the message says which file."""
    (state_dir / "journal.sqlite").mkdir(parents=True)
    assert "unable to open" in refusal(state_dir, JournalUnavailable)


def test_a_state_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """A file stands in the way; the message says what else to do."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(JournalUnavailable, match=r"file/state cannot be made: .*--state-dir"):
        Journal.open(tmp_path / "file" / "state")


def test_a_log_cut_anywhere_leaves_whole_events(tmp_path: Path) -> None:
    """After a power cut, SQLite drops what is not whole: a beginning is left, rows and all."""
    journal = Journal.open(tmp_path / "live")
    journal.create_job(JOB)
    for at in range(EVENTS):
        journal.append(JOB.id, saved(at), JobState(step=at))
    log = tmp_path / "live" / "journal.sqlite-wal"
    lengths = set()
    for cut in range(0, log.stat().st_size, log.stat().st_size // 23):
        torn = tmp_path / f"torn-{cut}"
        torn.mkdir()
        for path in (journal.path, log):
            shutil.copy(path, torn)
        os.truncate(torn / log.name, cut)
        with closing(Journal.open(torn)) as found:
            events = found.replay(JOB.id)
            assert events == [saved(at) for at in range(len(events))]
            assert len(found.checkpoints(JOB.id)) == len(events)
            lengths.add(len(events))
    journal.close()
    assert min(lengths) == 0
    assert len(lengths) > 10


def test_which_errors_pass_and_which_do_not(tmp_path: Path) -> None:
    """The code decides, not the words; one without a code is of the file's text, or our own."""

    def error(code: int) -> sqlite3.OperationalError:
        made = sqlite3.OperationalError("disk image is full of words")
        made.sqlite_errorcode = code
        return made

    for code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_BUSY_SNAPSHOT):
        found = translate(error(code), tmp_path)
        assert type(found) is JournalUnavailable
        assert found.full is (code == sqlite3.SQLITE_FULL)
    for code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        assert type(translate(error(code), tmp_path)) is JournalUnusable
    assert type(translate(sqlite3.OperationalError("no text"), tmp_path)) is JournalUnusable
    bug = sqlite3.ProgrammingError("closed")
    assert translate(bug, tmp_path) is bug


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 512 KiB."""
    where = tmp_path / "disk"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(where)]
    try:
        refused = subprocess.run(mount, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount(8) here: a full disk cannot be tried")
    if refused.returncode:
        pytest.skip(f"a full disk takes root and mount: {refused.stderr.strip()}")
    yield where
    subprocess.run(["umount", str(where)], check=True)


def fill_up(disk: Path) -> Path:
    """Take all the space that is left; the file that took it."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(512))
    assert shutil.disk_usage(disk).free == 0
    return ballast


def append_until_refused(journal: Journal) -> tuple[int, str]:
    """How many events were stored, and the message of the refusal."""
    for at in range(10_000):
        try:
            journal.append(JOB.id, saved(at), JobState())
        except JournalUnavailable as refused:
            return at, str(refused)
    raise AssertionError("the disk is never full")


def test_a_full_disk_is_said_and_survived(small_disk: Path) -> None:
    """Appending fails with advice, reading goes on, and when space returns so does appending."""
    with closing(Journal.open(small_disk)) as journal:
        journal.create_job(JOB)
        ballast = fill_up(small_disk)
        stored, message = append_until_refused(journal)
        assert str(small_disk / "journal.sqlite") in message
        assert "Check free space" in message
        assert journal.replay(JOB.id) == [saved(at) for at in range(stored)]
        with pytest.raises(JournalUnavailable):
            journal.append(JOB.id, saved(stored), JobState())
        ballast.unlink()
        for at in range(stored, stored + 5):
            journal.append(JOB.id, saved(at), JobState())
        assert journal.replay(JOB.id) == [saved(at) for at in range(stored + 5)]
        assert len(journal.checkpoints(JOB.id)) == stored + 5


def test_a_full_disk_before_the_first_run(small_disk: Path) -> None:
    """Nothing can be made; afterwards, with space, everything can."""
    ballast = fill_up(small_disk)
    with pytest.raises(JournalUnavailable, match="Check free space"):
        Journal.open(small_disk)
    ballast.unlink()
    with closing(Journal.open(small_disk)) as journal:
        journal.create_job(JOB)
        assert journal.jobs() == [replace(JOB, updated_s=JOB.created_s)]


def test_a_read_only_disk_is_said(small_disk: Path) -> None:
    """With a journal on it and without: no traceback, the path, and another way."""
    fill(small_disk / "used", events=3)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for folder in ("used", "new"):
        with pytest.raises(JournalUnavailable, match="--state-dir") as raised:
            Journal.open(small_disk / folder)
        assert str(small_disk / folder) in str(raised.value)
