"""A queue's file, or a disk, that refuses: a message a person can act on, and nothing lost.

The tests of a full and of a read-only disk mount a tmpfs of their own, which takes root; elsewhere
they are skipped and say so.
"""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from supervisor.queue.errors import translate
from supervisor.queue.store import Queue, QueueError, QueueUnavailable, QueueUnusable
from tests.unit.queue_entries import entry, submitted

ENTRIES = 40


def fill(state_dir: Path, entries: int = ENTRIES) -> Path:
    """Make a queue with some entries in it, closed; its file."""
    with closing(Queue.open(state_dir)) as queue:
        for seq in range(1, entries + 1):
            queue.add([submitted(seq, why="w" * 400)])
        return queue.path


def read_all(state_dir: Path) -> None:
    """Open a queue and read what is in it."""
    with closing(Queue.open(state_dir)) as queue:
        queue.entries()
        queue.happenings()


def refusal(state_dir: Path, kind: type[QueueError]) -> str:
    """What opening and reading this queue is answered with; no file may change by it."""
    path = state_dir / "queue.sqlite"
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


def altered(path: Path, *statements: str) -> None:
    """Let another program change the file."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a text file": lambda path: path.write_text("my notes\n" * 100),
    "an image": lambda path: path.write_bytes(b"\x89PNG\r\n" + os.urandom(5000)),
    "junk behind the header": lambda path: overwritten(path, 100, b"\xff" * 30_000),
    "a torn header": lambda path: overwritten(path, 0, b"\0" * 100),
    "cut in half": lambda path: os.truncate(path, path.stat().st_size // 2 + 100),
    "a phase of no version": lambda path: altered(path, "UPDATE entries SET phase = 'x'"),
    "a list that is none": lambda path: altered(path, "UPDATE entries SET after_jobs = '7'"),
    "half a list": lambda path: altered(path, "UPDATE entries SET claims = '[1,'"),
    "a text that is none": lambda path: altered(
        path, "UPDATE entries SET why = CAST(x'ff' AS TEXT)"
    ),
    "a table that is gone": lambda path: altered(path, "DROP TABLE entries"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_and_left_alone(state_dir: Path, damage: str) -> None:
    """The message names the file and how to go on without it; not a byte is changed."""
    DAMAGE[damage](fill(state_dir))
    message = refusal(state_dir, QueueUnusable)
    assert f"mv {state_dir}/queue.sqlite* {state_dir}/queue.damaged/" in message
    assert "Nothing was changed" in message


def test_the_advice_works(state_dir: Path) -> None:
    """The command in the message moves it away, log and all, and a new queue begins."""
    DAMAGE["cut in half"](fill(state_dir))
    message = refusal(state_dir, QueueUnusable)
    command = message.partition("(")[2].partition(")")[0]
    subprocess.run(["sh", "-c", command], check=True)
    with closing(Queue.open(state_dir)) as queue:
        assert queue.entries() == []
    assert (state_dir / "queue.damaged" / "queue.sqlite").exists()


@pytest.mark.parametrize("version", [0, 1])
def test_another_program_s_database_is_left_alone(state_dir: Path, version: int) -> None:
    """Neither our tables nor our settings are put into it."""
    path = fill(state_dir)
    path.unlink()
    altered(path, f"PRAGMA user_version = {version}", "CREATE TABLE notes (x)")
    message = refusal(state_dir, QueueUnusable)
    assert f"{path} is another program's database. Nothing was changed" in message


def test_a_journal_is_no_queue(state_dir: Path) -> None:
    """Not even ours of another kind, which has a version, too."""
    path = fill(state_dir)
    path.unlink()
    altered(path, "PRAGMA user_version = 1", "CREATE TABLE events (x)")
    assert "another program's database" in refusal(state_dir, QueueUnusable)


def test_a_newer_queue_is_refused_and_left_alone(state_dir: Path) -> None:
    """A downgrade loses nothing: it says which versions these are, and what to do."""
    altered(fill(state_dir), "PRAGMA user_version = 2")
    message = refusal(state_dir, QueueUnusable)
    assert "newer supervise (schema 2; this program knows 1)" in message
    assert "Upgrade supervise" in message


def test_an_empty_file_becomes_a_queue(state_dir: Path) -> None:
    """What a full disk, or a kill, left of the very first start is no damage."""
    state_dir.mkdir()
    (state_dir / "queue.sqlite").touch()
    with closing(Queue.open(state_dir)) as queue:
        assert queue.entries() == []


@pytest.mark.parametrize("what", ["a folder", "a link", "a link to nothing", "a pipe"])
def test_what_is_no_file_is_refused(state_dir: Path, tmp_path: Path, what: str) -> None:
    """Nothing is written to where it leads, and nobody waits for a pipe."""
    state_dir.mkdir()
    path, aim = state_dir / "queue.sqlite", tmp_path / "aim"
    {
        "a folder": path.mkdir,
        "a link": lambda: (aim.touch(), path.symlink_to(aim)),
        "a link to nothing": lambda: path.symlink_to(aim),
        "a pipe": lambda: os.mkfifo(path),
    }[what]()
    assert "is not a plain file" in refusal(state_dir, QueueUnusable)
    assert not aim.exists() or aim.stat().st_size == 0


def test_a_state_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    """A file stands in the way; the message says what else to do."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(QueueUnavailable, match=r"cannot be made: Not a directory.*--state-dir"):
        Queue.open(tmp_path / "file" / "state")


def test_a_log_cut_anywhere_leaves_whole_submissions(tmp_path: Path) -> None:
    """After a power cut, SQLite drops what is not whole: threes are left, with all that is said."""
    queue = Queue.open(tmp_path / "live")
    for seq in range(1, 60, 3):
        queue.add([submitted(seq), submitted(seq + 1), submitted(seq + 2)])
    log = tmp_path / "live" / "queue.sqlite-wal"
    lengths = set()
    for cut in range(0, log.stat().st_size, log.stat().st_size // 23):
        torn = tmp_path / f"torn-{cut}"
        torn.mkdir()
        for path in (queue.path, log):
            shutil.copy(path, torn)
        os.truncate(torn / log.name, cut)
        with closing(Queue.open(torn)) as found:
            entries = found.entries()
            assert entries == [entry(seq) for seq in range(1, len(entries) + 1)]
            assert len(entries) % 3 == 0
            assert len(found.happenings()) == len(found.unshelved()) == len(entries)
            lengths.add(len(entries))
    queue.close()
    assert min(lengths) == 0
    assert len(lengths) > 8


def test_which_errors_pass_and_which_do_not(tmp_path: Path) -> None:
    """The code decides, not the words; one without a code is of the file's text, or our own."""

    def error(code: int) -> sqlite3.OperationalError:
        made = sqlite3.OperationalError("disk image is full of words")
        made.sqlite_errorcode = code
        return made

    for code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_BUSY_SNAPSHOT):
        found = translate(error(code), tmp_path)
        assert type(found) is QueueUnavailable
        assert found.full is (code == sqlite3.SQLITE_FULL)
    for code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        assert type(translate(error(code), tmp_path)) is QueueUnusable
    assert type(translate(sqlite3.OperationalError("no text"), tmp_path)) is QueueUnusable
    bug = sqlite3.ProgrammingError("closed")
    assert translate(bug, tmp_path) is bug


@pytest.fixture(params=["64k", "512k"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Mount a disk on which a queue has hardly room, or has not."""
    where = tmp_path / "disk"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={request.param}", "none", str(where)]
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


def add_until_refused(queue: Queue, first: int) -> tuple[int, str]:
    """The first pair that was not stored, and the message of the refusal."""
    for seq in range(first, 10_000, 2):
        try:
            queue.add([submitted(seq), submitted(seq + 1)])
        except QueueUnavailable as refused:
            return seq, str(refused) if refused.full else "not for want of room"
    raise AssertionError("the disk is never full")


@pytest.mark.parametrize("small_disk", ["512k"], indirect=True)
def test_a_full_disk_is_said_and_survived(small_disk: Path) -> None:
    """Adding fails with advice, reading goes on, and when space returns so does adding."""
    with closing(Queue.open(small_disk)) as queue:
        ballast = fill_up(small_disk)
        seq, message = add_until_refused(queue, 1)
        assert str(small_disk / "queue.sqlite") in message
        assert "Check free space" in message
        whole = [entry(one) for one in range(1, seq)]
        assert queue.entries() == whole
        with pytest.raises(QueueUnavailable):
            queue.change(entry(1, why="w" * 5000), "Changed")
        assert queue.entries() == whole
        ballast.unlink()
        queue.add([submitted(seq), submitted(seq + 1)])
    with closing(Queue.open(small_disk)) as queue:
        assert queue.entries() == [entry(one) for one in range(1, seq + 2)]
        assert len(queue.happenings()) == seq + 1


def test_a_full_disk_before_the_first_start(small_disk: Path) -> None:
    """Nothing can be made; afterwards, with space, everything can, for as long as there is some."""
    ballast = fill_up(small_disk)
    with pytest.raises(QueueUnavailable, match="Check free space"):
        Queue.open(small_disk)
    ballast.unlink()
    if shutil.disk_usage(small_disk).total == 64 << 10:  # less than an empty queue and its log
        with pytest.raises(QueueUnavailable, match="Check free space"):
            Queue.open(small_disk)
        return
    with closing(Queue.open(small_disk)) as queue:
        stored, _ = add_until_refused(queue, 1)
        assert queue.entries() == [entry(one) for one in range(1, stored)]
    assert stored > 1


def test_a_read_only_disk_is_said(small_disk: Path) -> None:
    """With a queue on it and without: no traceback, the path, and another way."""
    with suppress(QueueUnavailable):
        fill(small_disk / "used", entries=3)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for folder in ("used", "new"):
        with pytest.raises(QueueUnavailable, match="--state-dir") as raised:
            Queue.open(small_disk / folder)
        assert str(small_disk / folder) in str(raised.value)


def test_somebody_else_holds_the_file(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person's sqlite3 in the middle of a transaction: it is said, and passes."""
    monkeypatch.setattr("supervisor.queue.store.BUSY_TIMEOUT_S", 0.05)
    path = fill(state_dir, entries=1)
    with closing(Queue.open(state_dir)) as queue, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(QueueUnavailable, match="database is locked"):
            queue.add([submitted(2)])
        other.execute("ROLLBACK")
        queue.add([submitted(2)])
        assert len(queue.entries()) == 2
