"""What the journal keeps: events, what follows from them, and all of it or nothing."""

import multiprocessing
import os
import random
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from supervisor.core.causes import Cause, State
from supervisor.core.events import (
    AttemptSpawned,
    CheckpointChosen,
    CheckpointVerified,
    Event,
    HoldRequired,
    RunnerStarted,
    SpecChanged,
    StopRequested,
)
from supervisor.core.machine import step
from supervisor.core.state import JobState
from supervisor.journal import JobRecord, Journal, JournalUnavailable, JournalUnusable
from supervisor.journal import journal as module
from supervisor.journal.codec import decode

JOB = JobRecord("j-1", "j", "/job", "{}", 1.0, 1.0, "queued", "", None, None, None, None, None)
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def journal(state_dir: Path) -> Iterator[Journal]:
    """Open a journal of this test's own, with one job in it."""
    opened = Journal.open(state_dir)
    opened.create_job(JOB)
    yield opened
    opened.close()


def saved(at: int) -> CheckpointVerified:
    """A checkpoint that verified."""
    return CheckpointVerified(at, f"c{at}", "zip", "crc", 10, 2.0, pinned=True)


def follow(journal: Journal, *events: Event) -> JobState:
    """Append events as a runner does: step first, then the state after it is stored."""
    state = JobState()
    for event in events:
        state, _ = step(state, event, 0.0)
        journal.append(JOB.id, event, state)
    return state


def test_replay_gives_back_what_was_appended(journal: Journal) -> None:
    """In order, equal, and of this job alone."""
    events = [RunnerStarted(1, 2, "boot"), CheckpointChosen(None, None), AttemptSpawned(1, 7, 8)]
    follow(journal, *events)
    journal.create_job(replace(JOB, id="j-2"))
    journal.append("j-2", StopRequested("somebody else's"), JobState())
    assert journal.replay(JOB.id) == events
    assert [one.kind for one in journal.events(JOB.id, after=1)] == [
        "CheckpointChosen",
        "AttemptSpawned",
    ]


def test_the_job_row_follows_the_state(journal: Journal) -> None:
    """State, reason and runner are those after the last event; an unknown step keeps the last."""
    journal.show_progress(JOB.id, 7, 30)
    follow(journal, RunnerStarted(41, 42, "boot"), HoldRequired(Cause.DISK_FULL, "full"))
    job = journal.job(JOB.id)
    assert job is not None
    assert (job.state, job.why, job.runner_pid, job.runner_ticks) == ("holding", "full", 41, 42)
    assert (job.step, job.total) == (7, 30)


def test_a_hold_is_no_attempt(journal: Journal) -> None:
    """Where nothing verifies, the rejected checkpoints are told and no attempt begins."""
    state = follow(journal, RunnerStarted(1, 2, "b"), saved(5), CheckpointChosen(None, None, 1))
    assert state.phase is State.HOLDING
    assert journal.attempts(JOB.id) == []
    assert [one.step for one in journal.checkpoints(JOB.id)] == [5]


def test_a_changed_job_file_is_stored_with_its_event(journal: Journal) -> None:
    """The new spec and the event that tells of it are one."""
    journal.append(JOB.id, SpecChanged(("a: 1 -> 2",)), JobState(), spec='{"a": 2}')
    job = journal.job(JOB.id)
    assert job is not None
    assert job.spec == '{"a": 2}'


def test_a_verdict_is_remembered_for_as_long_as_the_file_is_the_same(journal: Journal) -> None:
    """Another fingerprint is another file, and only the latest is kept."""
    journal.remember(JOB.id, "c5", "mtime-1", "good")
    assert journal.recall(JOB.id, "c5", "mtime-1") == "good"
    assert journal.recall(JOB.id, "c5", "mtime-2") is None
    assert journal.recall("j-2", "c5", "mtime-1") is None
    journal.remember(JOB.id, "c5", "mtime-2", "bad")
    assert journal.recall(JOB.id, "c5", "mtime-1") is None
    assert journal.recall(JOB.id, "c5", "mtime-2") == "bad"


def test_reading_where_no_job_ever_ran_makes_nothing(state_dir: Path) -> None:
    """`ps` on an empty host leaves no trace."""
    assert Journal.open_existing(state_dir) is None
    assert not state_dir.exists()


def test_only_its_owner_may_read_the_folder(journal: Journal) -> None:
    """The journal holds environments and command lines, which are nobody else's business."""
    assert journal.path.parent.stat().st_mode & 0o077 == 0


def test_an_event_and_its_rows_are_one(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the last of the derived rows cannot be written, nothing of the event is there."""
    monkeypatch.setitem(module.SQL.named, "update_job", "UPDATE no_such_table SET x = 1")
    with pytest.raises(JournalUnusable, match="no_such_table"):
        follow(journal, RunnerStarted(1, 2, "boot"))
    monkeypatch.undo()
    assert journal.replay(JOB.id) == []
    job = journal.job(JOB.id)
    assert job is not None
    assert job.runner_pid is None


def test_a_fault_of_the_program_is_not_blamed_on_the_file(journal: Journal) -> None:
    """A second job of the same id, or a closed journal, is a bug: nobody is told to move files."""
    with pytest.raises(sqlite3.IntegrityError):
        journal.create_job(JOB)
    journal.close()
    with pytest.raises(sqlite3.ProgrammingError):
        journal.jobs()


def test_an_event_of_a_newer_program_is_named() -> None:
    """An unknown kind, and fields that do not fit, are refused with the kind in the message."""
    with pytest.raises(JournalUnusable, match="does not know: CoffeeSpilled"):
        decode("CoffeeSpilled", "{}")
    with pytest.raises(JournalUnusable, match="stored WorkerExited cannot be read"):
        decode("WorkerExited", '{"number": "many"}')
    with pytest.raises(JournalUnusable, match="stored StopRequested cannot be read"):
        decode("StopRequested", "not JSON")


def test_fields_come_and_go_between_versions() -> None:
    """A field that this program lacks is ignored; one that the journal lacks takes its default."""
    newer = '{"pid": 1, "start_ticks": 2, "boot_id": "b", "colour": "red"}'
    assert decode("RunnerStarted", newer) == RunnerStarted(1, 2, "b", rebooted=False)


def appending(folder: Path, job_id: str, count: int, told: int) -> None:
    """Append checkpoints, and say over a pipe after each that it is safe."""
    journal = Journal.open(folder)
    for at in range(count):
        journal.append(job_id, saved(at), JobState(step=at))
        os.write(told, b".")


def in_child(work: Callable[..., None], *arguments: object) -> multiprocessing.Process:
    """Start a process that shares nothing with this one but the files."""
    process = FORK.Process(target=work, args=arguments)
    process.start()
    return process


def test_a_writer_killed_at_any_moment_loses_nothing_that_it_was_told_is_safe(
    state_dir: Path, journal: Journal
) -> None:
    """SIGKILL in the middle: every acknowledged event is there, with its row, and nothing half."""
    draw = random.Random(5)
    for round_ in range(12):
        job_id = f"killed-{round_}"
        journal.create_job(replace(JOB, id=job_id))
        ours, theirs = os.pipe()
        child = in_child(appending, state_dir, job_id, 10_000, theirs)
        os.close(theirs)
        safe, wanted = 0, draw.randint(1, 12)
        while safe < wanted:
            told = os.read(ours, wanted - safe)
            assert told, "the writer died by itself"
            safe += len(told)
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        while more := os.read(ours, 4096):
            safe += len(more)
        os.close(ours)
        events = journal.replay(job_id)
        assert events == [saved(at) for at in range(len(events))]
        assert len(events) in {safe, safe + 1}  # the last may be stored and not yet told
        assert [one.step for one in journal.checkpoints(job_id)] == list(range(len(events)))
        job = journal.job(job_id)
        assert job is not None
        assert job.step == len(events) - 1


def test_processes_that_append_at_the_same_time_wait_for_each_other(
    state_dir: Path, journal: Journal
) -> None:
    """Nobody's event is lost or torn apart, and each job's are in its own order."""
    names = [f"at-once-{number}" for number in range(3)]
    with Path(os.devnull).open("wb") as nobody:
        for name in names:
            journal.create_job(replace(JOB, id=name))
        children = [in_child(appending, state_dir, name, 40, nobody.fileno()) for name in names]
        for child in children:
            child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    for name in names:
        assert journal.replay(name) == [saved(at) for at in range(40)]
        assert len(journal.checkpoints(name)) == 40


def opening(folder: Path, start: Barrier) -> None:
    """Open the journal at the same moment as others."""
    start.wait()
    Journal.open(folder).close()


def test_many_first_runs_at_the_same_moment_all_work(tmp_path: Path) -> None:
    """Whoever comes first makes the tables; nobody finds half of them, or is turned away."""
    for round_ in range(6):
        start = FORK.Barrier(5)
        children = [in_child(opening, tmp_path / str(round_), start) for _ in range(5)]
        for child in children:
            child.join()
        assert [child.exitcode for child in children] == [0] * 5


def half_made(state_dir: Path) -> sqlite3.Connection:
    """A journal that another process has begun to make, and has not finished."""
    state_dir.mkdir(parents=True)
    other = sqlite3.connect(state_dir / "journal.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


def test_making_the_journal_waits_for_another_who_is_making_it(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite answers "locked" at once there; two first runs at the same moment must both work."""
    other = half_made(state_dir)
    waits: list[float] = []

    def let_go(wait_s: float) -> None:
        waits.append(wait_s)
        if other.in_transaction:
            other.execute("ROLLBACK")

    monkeypatch.setattr(module.time, "sleep", let_go)
    Journal.open(state_dir).close()
    other.close()
    assert waits == [module.BUSY_LOOK_AGAIN_S]


def test_who_comes_second_makes_nothing_again(
    state_dir: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the version and the lock, another process may have made the tables."""
    versions = iter([0, module.SCHEMA_VERSION])
    monkeypatch.setattr(Journal, "_version", lambda _self: next(versions))
    with closing(Journal.open(state_dir)) as second:
        assert second.jobs() == journal.jobs()


def test_a_journal_that_stays_locked_is_unavailable(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the wait it says so, with the path."""
    other = half_made(state_dir)
    monkeypatch.setattr(module, "BUSY_TIMEOUT_S", 0.0)
    with pytest.raises(JournalUnavailable, match=r"journal\.sqlite cannot be used: .*locked"):
        Journal.open(state_dir)
    other.close()
