"""A job's checkpoints in the hands of its runner: surveyed, copied, thinned out, chosen."""

import os
import time
import zipfile

import pytest

from supervisor.checkpoint.fingerprint import fingerprint
from supervisor.checkpoint.verdict import Kind, Level, Outcome, Verdict
from supervisor.core.events import CheckpointChosen, CheckpointVerified
from supervisor.journal import JournalUnavailable
from supervisor.runner.checkpoints import JournalMemory, Keeper

GOOD = Verdict(Outcome.OK, Kind.PLAIN, Level.STABLE, "", 3)


@pytest.fixture
def save(tmp_path):
    """Save a checkpoint as torch does; its times are an hour old."""

    def saved(step):
        path = tmp_path / "out" / f"ckpt-{step}.pt"
        path.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", str(step))
            archive.writestr("archive/version", "3")
        before_s = time.time() - 3600 + step
        os.utime(path, (before_s, before_s))
        return path

    return saved


@pytest.fixture
def keeper(open_a_job):
    """Make the keeper of a job with these words about checkpoints."""

    def made(**words):
        given = {"dir": "out", "glob": "ckpt-*.pt", **words}
        job = open_a_job(checkpoint=given, resume={"argv": ["--resume", "{path}"]})
        return Keeper(job, job.settings.layout)

    return made


def _names(folder):
    return sorted(path.name for path in folder.glob("ckpt-*"))


def test_a_survey_tells_of_a_checkpoint_once(keeper, save):
    """The newest that verifies is news, and copied; the same bytes are no news again."""
    one = keeper()
    assert one.survey(worker_lives=True) is None
    save(1)
    save(2)
    found = one.survey(worker_lives=True)
    assert isinstance(found, CheckpointVerified)
    assert (found.step, found.pinned, found.level) == (2, True, "verified")
    assert one.survey(worker_lives=True) is None
    assert one.pins.newest().step == 2


def test_keep_thins_out_also_what_no_survey_had_seen(keeper, save, tmp_path):
    """A script that saves faster than the survey looks: the newest two stay, whole."""
    one = keeper(keep=2)
    for step in (1, 2, 3, 4, 5):
        save(step)
    assert one.survey(worker_lives=True).step == 5
    assert _names(tmp_path / "out") == ["ckpt-4.pt", "ckpt-5.pt"]


def test_keep_deletes_nothing_that_is_bad_or_newer_than_the_copy(keeper, save, tmp_path):
    """A torn one may be evidence, and is no checkpoint to count."""
    one = keeper(keep=1)
    for step in (1, 2, 3):
        save(step)
    os.truncate(tmp_path / "out" / "ckpt-3.pt", 40)
    before_s = time.time() - 3600
    os.utime(tmp_path / "out" / "ckpt-3.pt", (before_s, before_s))
    assert one.survey(worker_lives=False).step == 2
    assert _names(tmp_path / "out") == ["ckpt-2.pt", "ckpt-3.pt"]


def test_what_cannot_be_deleted_stops_nobody(keeper, save, tmp_path, monkeypatch):
    """`keep` is a wish: a folder that refuses costs space, not the training."""

    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("supervisor.runner.checkpoints.retain", refuse)
    one = keeper(keep=1)
    save(1)
    save(2)
    assert one.survey(worker_lives=True).step == 2
    assert len(_names(tmp_path / "out")) == 2


def test_the_choice_is_told_after_what_was_verified_for_it(keeper, save, tmp_path):
    """First the fact, then the choice that rests on it; nothing is thinned out meanwhile."""
    one = keeper(keep=1)
    save(1)
    path = save(2)
    verified, chosen = one.choose(None)
    assert isinstance(verified, CheckpointVerified)
    assert isinstance(chosen, CheckpointChosen)
    assert (chosen.path, chosen.step, chosen.candidates) == (str(path), 2, 2)
    assert len(_names(tmp_path / "out")) == 2
    assert [event.path for event in one.choose(None)] == [str(path)]


def test_a_choice_of_nothing_tells_whether_there_was_anything(keeper, save, tmp_path):
    """No candidate, and none that verifies, are two things: the second one must not start anew."""
    one = keeper()
    assert one.choose(None) == (CheckpointChosen(None, None, candidates=0),)
    os.truncate(save(3), 10)
    (chosen,) = one.choose(None)
    assert (chosen.path, chosen.candidates, len(chosen.rejected)) == (None, 1, 1)
    assert chosen.rejected[0].set_aside_to is not None
    (again,) = one.choose(None)
    assert again.candidates == 1


def test_a_memory_forgets_a_file_that_changed(open_a_job, tmp_path):
    """What was found is found again, for these very bytes; also under a name that is no text."""
    job = open_a_job()
    memory = JournalMemory(job.state_dir, job.id)
    path = tmp_path / os.fsdecode(b"ckpt-\xff.pt")
    path.write_bytes(b"one")
    first = fingerprint(path)
    assert memory.get(path, first) is None
    memory.put(path, first, GOOD)
    assert memory.get(path, first) == GOOD
    path.write_bytes(b"another")
    assert memory.get(path, fingerprint(path)) is None


def test_a_journal_that_refuses_costs_a_second_reading_and_nothing_else(
    open_a_job, tmp_path, monkeypatch
):
    """The state folder's disk is full: nothing is remembered, nothing is raised."""

    def full(*_):
        raise JournalUnavailable("database or disk is full")

    job = open_a_job()
    memory = JournalMemory(job.state_dir, job.id)
    path = tmp_path / "a.pt"
    path.write_bytes(b"one")
    for verb in ("remember", "recall"):
        monkeypatch.setattr(f"supervisor.journal.Journal.{verb}", full)
    memory.put(path, fingerprint(path), GOOD)
    assert memory.get(path, fingerprint(path)) is None
