"""A removed job is gone whole, whenever the removal is killed; nobody else's things go with it."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from supervisor.core.causes import State
from supervisor.journal import Journal
from supervisor.journal.records import JobRecord
from supervisor.runner import remove as removing
from supervisor.runner.held import held
from supervisor.runner.home import JobFolder
from supervisor.runner.locks import AlreadyRunning, Lock
from supervisor.runner.opening import open_job, open_known
from supervisor.runner.remove import NotRemoved, old, remove, size_bytes, sweep
from supervisor.runner.tiers import MemoryTier
from supervisor.spec.load import load_job


@pytest.fixture
def journal(state_dir) -> Iterator[Journal]:
    """Give a journal of this test's own."""
    opened = Journal.open(state_dir)
    yield opened
    opened.close()


@pytest.fixture
def spec(tmp_path):
    """Give a job of one command, with checkpoints of its own."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "ckpt-1.pt").write_text("the user's")
    file = tmp_path / "job.yaml"
    checkpoint = {"dir": "out", "glob": "ckpt-*.pt"}
    fields = {"name": "net", "command": ["true"], "checkpoint": checkpoint}
    file.write_text(json.dumps(fields | {"resume": {"mode": "none"}}))
    return load_job(file, {})


@pytest.fixture
def job_id(journal, state_dir, spec):
    """Give a job that has left everything that a job may leave."""
    with open_job(journal, state_dir, spec) as job:
        folder = job.folder
    for path in (folder.attempt(1).path, folder.pins / "step-1", folder.scratch, folder.modules):
        path.mkdir(parents=True)
    folder.attempt(1).log.write_text("a line\n")
    folder.runner_log.write_text("{}\n")
    (folder.pins / "step-1" / "link").symlink_to(spec.folder / "out")
    (folder.modules / "workers").symlink_to(spec.folder)
    return job.id


def left(state_dir) -> list[str]:
    """What lies in the folder of all jobs."""
    return sorted(one.name for one in (state_dir / "jobs").iterdir())


def test_a_removed_job_leaves_nothing_but_what_its_script_wrote(journal, state_dir, spec, job_id):
    """Rows and folder go; the user's checkpoints, to which links led, stay."""
    remove(state_dir, journal, job_id)
    assert journal.jobs() == []
    assert left(state_dir) == []
    assert (spec.folder / "out" / "ckpt-1.pt").read_text() == "the user's"
    assert (spec.folder / "job.yaml").exists()


def test_its_snapshots_in_memory_go_too(journal, state_dir, job_id):
    """They are nobody's any more."""
    tier = MemoryTier.at(state_dir, job_id)
    tier._make()
    (tier.folder / "step-000000001").mkdir()
    remove(state_dir, journal, job_id)
    assert not tier.folder.exists()


def test_a_job_that_a_runner_has_is_not_removed(journal, state_dir, job_id):
    """Nothing of it is touched."""
    with open_known(journal, state_dir, job_id), pytest.raises(AlreadyRunning):
        remove(state_dir, journal, job_id)
    assert left(state_dir) == [job_id]
    assert JobFolder.of(state_dir, job_id).attempt(1).log.exists()
    assert journal.job(job_id) is not None


def test_a_job_whose_worker_outlived_its_runner_is_not_removed(journal, state_dir, job_id):
    """Its lock would go with the folder, and a second worker could begin beside it."""
    worker = Lock(JobFolder.of(state_dir, job_id).worker_lock)
    assert worker.try_hold()
    with pytest.raises(NotRemoved, match=f"supervise cancel {job_id}"):
        remove(state_dir, journal, job_id)
    worker.close()
    assert left(state_dir) == [job_id]
    remove(state_dir, journal, job_id)
    assert left(state_dir) == []


def test_what_is_no_job_is_not_removed(journal, state_dir, job_id):
    """A folder without rows may hold the last good copies of a job whose journal was lost."""
    (state_dir / "jobs" / "lost-000000" / "pins").mkdir(parents=True)
    with pytest.raises(KeyError):
        remove(state_dir, journal, "lost-000000")
    assert sweep(state_dir, journal) == []
    assert left(state_dir) == sorted([job_id, "lost-000000"])


def test_where_no_job_ever_ran_there_is_nothing_to_sweep(journal, state_dir):
    """No folder, no error."""
    assert sweep(state_dir, journal) == []


class Killed(BaseException):
    """What SIGKILL looks like from within a test."""


@contextmanager
def killed_at(monkeypatch, number: int):
    """The process ends before its `number`-th change on disk; yields how many there were."""
    counted = [0]

    def counting(owner, name):
        real = getattr(owner, name)

        def call(*args, **kwargs):
            counted[0] += 1
            if counted[0] == number:
                raise Killed
            return real(*args, **kwargs)

        patch.setattr(owner, name, call)

    with monkeypatch.context() as patch:
        path = type(JobFolder.of(removing.Path("/"), "x").path)
        for name in ("touch", "rename", "unlink"):
            counting(path, name)
        counting(removing, "fsync_folder")
        counting(removing.shutil, "rmtree")
        counting(removing.outputs, "empty_memory")
        counting(Journal, "remove_job")
        yield counted


def test_a_removal_killed_at_any_moment_is_finished_by_a_sweep(
    journal, state_dir, spec, monkeypatch
):
    """Either nothing has happened yet, or a mark tells; after the sweep, all of it or nothing."""
    outcomes = set()
    for number in range(1, 40):
        _left_by_a_job(journal, state_dir, spec)
        job_id = journal.jobs()[0].id
        finished = False
        with killed_at(monkeypatch, number) as counted, suppress(Killed):
            remove(state_dir, journal, job_id)
            finished = True
        if finished:
            assert counted[0] == number - 1
            break
        known, there = journal.job(job_id) is not None, job_id in left(state_dir)
        marked = any(one.startswith(".") for one in left(state_dir))
        assert known == there or marked, f"killed at {number}: said by nobody"
        sweep(state_dir, journal)
        known, names = journal.job(job_id) is not None, left(state_dir)
        assert names == ([job_id] if known else []), f"killed at {number}"
        assert (spec.folder / "out" / "ckpt-1.pt").exists()
        outcomes.add(known)
    else:
        pytest.fail("it never ends")
    assert number > 8
    assert outcomes == {True, False}


def _left_by_a_job(journal, state_dir, spec):
    with open_job(journal, state_dir, spec) as job:
        job.folder.attempt(1).path.mkdir(parents=True, exist_ok=True)
        job.folder.attempt(1).log.write_text("a line\n")
        job.folder.runner_log.write_text("{}\n")


def test_who_runs_a_job_whose_removal_was_killed_gets_a_new_one(
    journal, state_dir, spec, job_id, monkeypatch
):
    """It was removed; the copies of the old one are not resumed from."""
    monkeypatch.setattr(Journal, "remove_job", _killed)
    with pytest.raises(Killed):
        remove(state_dir, journal, job_id)
    monkeypatch.undo()
    with open_job(journal, state_dir, spec) as job:
        assert job.id == job_id
        assert not job.folder.pins.exists()
        assert journal.events(job.id) == []
    assert left(state_dir) == [job_id]
    remove(state_dir, journal, job_id)


def test_a_runner_that_is_started_for_such_a_job_finds_none(
    journal, state_dir, job_id, monkeypatch
):
    """What was decided is finished, and then there is no such job."""
    monkeypatch.setattr(Journal, "remove_job", _killed)
    with pytest.raises(Killed):
        remove(state_dir, journal, job_id)
    monkeypatch.undo()
    with pytest.raises(KeyError), open_known(journal, state_dir, job_id):
        pytest.fail("it is removed")
    assert (journal.jobs(), left(state_dir)) == ([], [])


def _killed(*_args):
    raise Killed


def test_what_cannot_be_deleted_is_said_and_can_be_tried_again(
    journal, state_dir, job_id, monkeypatch
):
    """The mark stays; so do the rows, by which the job is found."""
    folder = JobFolder.of(state_dir, job_id)
    real = removing.shutil.rmtree

    def refuses(path, **options):
        if str(path).endswith("attempts"):
            raise PermissionError(13, "Permission denied", str(path))
        real(path, **options)

    monkeypatch.setattr(removing.shutil, "rmtree", refuses)
    with pytest.raises(NotRemoved, match=r"attempts: Permission denied\. Check permissions"):
        remove(state_dir, journal, job_id)
    assert sweep(state_dir, journal) == []
    assert journal.job(job_id) is not None
    monkeypatch.undo()
    assert sweep(state_dir, journal) == [job_id]
    assert (folder.path.exists(), journal.jobs()) == (False, [])


def test_a_folder_that_lets_no_mark_be_made_keeps_its_job(journal, state_dir, job_id, monkeypatch):
    """Nothing has happened: the job can be run as before."""

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(removing, "fsync_folder", full)
    with pytest.raises(NotRemoved, match="No space left"):
        remove(state_dir, journal, job_id)
    monkeypatch.undo()
    assert left(state_dir) == [job_id]
    with open_known(journal, state_dir, job_id) as job:
        assert job.folder.attempt(1).log.exists()


def test_who_waits_with_a_lock_that_was_put_away_takes_the_new_one(journal, state_dir, job_id):
    """Opened before the removal and locked after it: it is of a file without a name."""
    folder = JobFolder.of(state_dir, job_id)
    early = Lock(folder.runner_lock)
    remove(state_dir, journal, job_id)
    assert early.try_hold()
    with held(folder):  # is not kept out by it
        assert os.fstat(early.fd).st_nlink == 0
    early.close()


# id, state, when last heard of, size of its log
AGED = [
    ("done-a", State.SUCCEEDED, 100.0, 50_000),
    ("lost-b", State.RUNNING, 110.0, 50_000),
    ("done-c", State.FAILED, 200.0, 50_000),
    ("held-d", State.HOLDING, 210.0, 50_000),
    ("done-e", State.CANCELLED, 300.0, 50_000),
    ("kept-f", State.STOPPED, 400.0, 50_000),
]


@pytest.fixture
def aged(journal, state_dir):
    """Give a journal of jobs of all ages and states, each with a folder."""
    for job_id, state, at_s, size in reversed(AGED):
        named = JobRecord(job_id, job_id, "/x", "{}", 1, 1, state, "", *(None,) * 5)
        journal.create_job(named)
        journal._connection.execute("UPDATE jobs SET updated_s = ? WHERE id = ?", (at_s, job_id))
        folder = JobFolder.of(state_dir, job_id).path
        folder.mkdir(parents=True)
        (folder / "log").write_bytes(b"x" * size)
    return journal


@pytest.mark.parametrize(
    ("older_than_s", "keep", "leaving"),
    [
        (None, None, ""),
        (1000.0, None, ""),
        (150.0, None, "a c e"),
        (200.0, None, "a c"),
        (0.0, None, "a c e"),
        (None, 6, ""),
        (None, 5, "a"),
        (None, 3, "a c e"),
        (None, 0, "a c e"),
        (250.0, 4, "a c"),
        (200.0, 3, "a c e"),
    ],
)
def test_retention_takes_the_oldest_that_have_ended(aged, state_dir, older_than_s, keep, leaving):
    """By age, by size, or both; what runs, waits or is held is never among them."""
    one = size_bytes(JobFolder.of(state_dir, "done-a").path)
    keep_bytes = None if keep is None else keep * one
    found = old(aged, older_than_s, keep_bytes, now_s=500.0)
    assert [job_id[-1] for job_id in found] == leaving.split()


def test_a_size_is_what_the_disk_gives(tmp_path):
    """Holes cost nothing, a file with two names counts once, a link is not followed."""
    folder = tmp_path / "folder"
    folder.mkdir()
    empty = size_bytes(folder)
    with (folder / "hole").open("wb") as file:
        file.truncate(1 << 30)
    (tmp_path / "elsewhere").write_bytes(b"x" * 100_000)
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    assert size_bytes(folder) - empty < 10_000
    (folder / "one").write_bytes(b"x" * 100_000)
    once = size_bytes(folder)
    (folder / "two").hardlink_to(folder / "one")
    assert once - empty >= 100_000
    assert size_bytes(folder) == once
    assert size_bytes(tmp_path / "missing") == 0
