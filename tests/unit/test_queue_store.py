"""The queue's file: what was accepted is there, whole, and what happened stays told."""

import sqlite3
import stat
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from supervisor.queue.model import Entry, Group, Needs, Phase, Wish
from supervisor.queue.store import BUSY_TIMEOUT_S, Happening, NotStorable, Queue, Submitted
from tests.unit.queue_entries import SPEC, SURROUNDINGS, entry, full_entry, submitted


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    """Give an empty queue."""
    opened = Queue.open(tmp_path / "state")
    yield opened
    opened.close()


def reopened(queue: Queue) -> Queue:
    """The same file, as another daemon finds it."""
    queue.close()
    return Queue.open(queue.path.parent)


def test_an_entry_comes_back_as_it_was(queue: Queue) -> None:
    """Every field, with and without a value."""
    plain, full = entry(1), full_entry(2)
    default = entry(2)
    same = {
        one.name for one in fields(Entry) if getattr(full, one.name) == getattr(default, one.name)
    }
    assert same == {"id", "seq", "uid", "name", "folder", "submitted_s", "queued_s"}
    queue.add([Submitted(plain, SPEC, SURROUNDINGS), Submitted(full, SPEC, SURROUNDINGS)])
    again = reopened(queue)
    assert again.entries() == [plain, full]
    assert (again.entry("job-2"), again.entry("job-3")) == (full, None)
    assert isinstance(again.entries()[1].needs.share_gpu, bool)
    assert isinstance(again.entries()[1].phase, Phase)
    again.close()


def test_a_submission_is_taken_whole_or_not_at_all(queue: Queue) -> None:
    """The last of three is known already: none of them is there, nor anything said of them."""
    queue.add([submitted(1)])
    with pytest.raises(sqlite3.IntegrityError):
        queue.add([submitted(2), submitted(3), submitted(4, id="job-1")])
    assert queue.entries() == [entry(1)]
    assert [one.job_id for one in queue.happenings()] == ["job-1"]
    assert len(queue.unshelved()) == 1
    queue.add([submitted(2)])


def test_a_key_is_used_once(queue: Queue) -> None:
    """Two jobs of a user under one key cannot be; of two users they can."""
    queue.add([submitted(1, key="nightly"), submitted(2, key="nightly", uid=7), submitted(3)])
    with pytest.raises(sqlite3.IntegrityError):
        queue.add([submitted(4, key="nightly")])
    assert len(queue.entries()) == 3


def test_what_is_on_the_shelf_is_not_kept(queue: Queue) -> None:
    """Spec and surroundings wait for the shelf in order of submission, and are then erased."""
    around = '{"env": {"WHERE": "a-place-that-nobody-else-names"}}'
    queue.add([Submitted(entry(2), SPEC, around)])
    queue.add([submitted(1)])
    queue = reopened(queue)
    assert queue.unshelved() == [submitted(1), Submitted(entry(2), SPEC, around)]
    queue.shelved(["job-2", "unheard-of"])
    assert queue.unshelved() == [submitted(1)]
    queue.close()
    assert b"a-place-that-nobody" not in queue.path.read_bytes()


def test_it_is_erased_from_the_log_too(queue: Queue) -> None:
    """While the queue is open, for it may be so for months."""
    log = queue.path.with_name(f"{queue.path.name}-wal")
    around = '{"env": {"WHERE": "a-place-that-nobody-else-names"}}'
    queue.add([Submitted(entry(1), SPEC, around)])
    assert b"a-place-that-nobody" in log.read_bytes()
    queue.shelved(["job-1"])
    assert queue.empty_log()
    assert b"a-place-that-nobody" not in log.read_bytes() + queue.path.read_bytes()


def test_a_reader_is_not_in_the_way_for_ever(queue: Queue) -> None:
    """Who reads keeps the log from being emptied; that is said, and it is tried again."""
    queue.add([submitted(1)])
    with closing(sqlite3.connect(queue.path)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM entries").fetchall()
        queue.shelved(["job-1"])
        began = time.monotonic()
        assert not queue.empty_log()
        assert time.monotonic() - began < BUSY_TIMEOUT_S  # the daemon's only thread waits for this
    assert queue.empty_log()
    (patience,) = queue._connection.execute("PRAGMA busy_timeout").fetchone()
    assert patience == BUSY_TIMEOUT_S * 1000  # whoever writes is waited for again


@pytest.mark.parametrize("odd", ["\ud800", 10**30])
def test_what_no_database_can_hold_is_not_sought(queue: Queue, odd: Any) -> None:
    """Nor is the file blamed for it."""
    with pytest.raises(NotStorable):
        queue.entry(odd)
    with pytest.raises(NotStorable):
        queue.happenings(job_id=odd)


def test_a_change_is_told(queue: Queue) -> None:
    """The new value and what happened, of several jobs, are there together."""
    queue.add([submitted(1), submitted(2)])
    first = replace(entry(1), phase=Phase.STARTED, launches=1)
    second = replace(entry(2), wish=Wish.CANCEL)
    queue.change_all([(first, "Placed", {"gpus": ["GPU-1"]}), (second, "Cancelled", {"by": 1000})])
    queue.change(entry(9), "Imported")
    queue = reopened(queue)
    assert queue.entries() == [first, second, entry(9)]
    told = [(one.job_id, one.kind, one.body) for one in queue.happenings()]
    assert told == [
        ("job-1", "Submitted", {"uid": 1000, "name": "job"}),
        ("job-2", "Submitted", {"uid": 1000, "name": "job"}),
        ("job-1", "Placed", {"gpus": ["GPU-1"]}),
        ("job-2", "Cancelled", {"by": 1000}),
        ("job-9", "Imported", {}),
    ]
    queue.close()


def test_a_change_that_cannot_be_told_is_none(queue: Queue) -> None:
    """What is no JSON is refused, and the entry is as it was."""
    queue.add([submitted(1)])
    with pytest.raises(ValueError, match="not JSON compliant"):
        queue.change(replace(entry(1), why="new"), "Odd", figure=float("nan"))
    with pytest.raises(TypeError):
        queue.change_all([(replace(entry(1), why="new"), "Odd", {"what": object()})])
    assert queue.entries() == [entry(1)]


def test_happenings_are_read_in_pages_and_by_job(queue: Queue) -> None:
    """Behind a number, of one job, at most so many."""
    assert queue.last_happening() == 0
    queue.add([submitted(seq) for seq in range(1, 6)])
    queue.change(entry(2), "Moved")
    assert [one.seq for one in queue.happenings(after=2, limit=2)] == [3, 4]
    assert [one.kind for one in queue.happenings(job_id="job-2")] == ["Submitted", "Moved"]
    assert queue.happenings(after=6, job_id="job-2") == []
    last = queue.happenings()[-1]
    assert (last.seq, queue.last_happening()) == (6, 6)
    assert isinstance(last, Happening)


def test_what_happened_is_never_told_otherwise(queue: Queue) -> None:
    """The file itself refuses to change it."""
    queue.add([submitted(1)])
    with pytest.raises(sqlite3.IntegrityError, match="only ever added"):
        queue._connection.execute("UPDATE happenings SET kind = 'Other'")
    assert queue.happenings()[0].kind == "Submitted"


def test_a_number_is_never_given_twice(queue: Queue) -> None:
    """Not even when the last job was forgotten."""
    assert queue.next_seq() == 1
    queue.add([submitted(1), submitted(2)])
    queue.forget(["job-2", "unheard-of"])
    queue = reopened(queue)
    assert queue.next_seq() == 3
    assert queue.entries() == [entry(1)]
    queue.close()


def test_forgetting_leaves_nothing(queue: Queue) -> None:
    """The entry, what was kept for its shelf and what is said of it go; others stay."""
    queue.add([submitted(1, key="k"), submitted(2)])
    queue.forget(["job-1"])
    assert [one.job_id for one in queue.happenings()] == ["job-2"]
    assert queue.unshelved() == [submitted(2)]
    queue.add([submitted(3, key="k")])
    assert queue.happenings()[-1].seq == 3


def test_groups(queue: Queue) -> None:
    """A group is stored, changed, and each change told; two users may have one of the same name."""
    queue.change_group(Group(uid=1000, name="sweep", hold_after=3), "GroupSet")
    held = Group(uid=1000, name="sweep", hold_after=3, failures=3, held=True)
    queue.change_group(held, "GroupHeld", failures=3)
    queue.change_group(Group(uid=7, name="sweep"), "GroupSet")
    queue = reopened(queue)
    assert queue.groups() == [Group(uid=7, name="sweep"), held]
    told = queue.happenings()[1]
    assert (told.job_id, told.kind) == (None, "GroupHeld")
    assert told.body == {"uid": 1000, "group": "sweep", "failures": 3}
    queue.close()


@pytest.mark.parametrize(
    "fields_",
    [{"key": "half a \ud83d"}, {"folder": "/data/\udcff"}, {"needs": Needs(memory_bytes=1 << 63)}],
)
def test_what_no_database_can_hold(queue: Queue, fields_: dict[str, object]) -> None:
    """It is refused in words, and nothing of the submission is there."""
    with pytest.raises(NotStorable, match="the queue cannot store this"):
        queue.add([submitted(1), submitted(2, **fields_)])
    assert (queue.entries(), queue.happenings()) == ([], [])
    queue.add([submitted(1)])


def test_odd_text_is_kept_as_it_is(queue: Queue) -> None:
    """Quotes, newlines and zeros are text like any other, also in lists."""
    odd = entry(1, name="'; DROP TABLE entries; --", why="a\x00b\n", claims=("/d/\udcff", '/"q"'))
    queue.add([Submitted(odd, SPEC, SURROUNDINGS)])
    assert queue.entries() == [odd]


def test_nobody_else_may_read_it(queue: Queue, tmp_path: Path) -> None:
    """The file and its log are the daemon's alone, in a folder that others may enter, too."""
    queue.add([submitted(1)])
    state = tmp_path / "state"
    state.chmod(0o711)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in state.iterdir()}
    assert modes == dict.fromkeys(["queue.sqlite", "queue.sqlite-wal", "queue.sqlite-shm"], 0o600)
    queue.close()
    queue.path.chmod(0o644)
    again = Queue.open(state)
    assert stat.S_IMODE(queue.path.stat().st_mode) == 0o600
    again.close()


def test_it_may_be_used_from_another_thread(queue: Queue) -> None:
    """A daemon whose disk is slow does its writing beside its event loop."""
    thread = threading.Thread(target=queue.add, args=([submitted(1)],))
    thread.start()
    thread.join()
    assert queue.entries() == [entry(1)]


def test_jobs_that_are_alike_share_what_they_can(queue: Queue) -> None:
    """2,000 entries are in 3 MB: what they have in common is in memory once."""
    jobs = [submitted(seq, name="train", claims=(f"/data/runs/{seq}",)) for seq in range(1, 2001)]
    queue.add(jobs)
    queue.entries()
    tracemalloc.start()
    try:
        found = queue.entries()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == 2000
    assert found[0].needs is found[-1].needs
    assert found[0].folder is found[-1].folder
    assert used < 3_000_000
