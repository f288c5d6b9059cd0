"""Taking a job in hand: found again, accepted once, never by two."""

import json

import pytest

from supervisor.core.causes import State
from supervisor.journal import Journal, JournalUnavailable
from supervisor.runner import opening
from supervisor.runner.locks import AlreadyRunning
from supervisor.runner.opening import Intent, SpecDiffers, job_id, open_job, open_known
from supervisor.spec.load import load_job


@pytest.fixture
def spec(tmp_path):
    """Give a job of one command."""
    return load_job(_written(tmp_path, ["true"]), {})


def _written(folder, command):
    file = folder / "job.yaml"
    file.write_text(json.dumps({"name": "net", "command": command}))
    return file


@pytest.fixture
def journal(state_dir):
    """Give a journal of this test's own."""
    opened = Journal.open(state_dir)
    yield opened
    opened.close()


def test_a_job_is_known_by_name_and_folder(journal, state_dir, spec):
    """The second opening finds the first one's job; an id tells folders and fresh starts apart."""
    with open_job(journal, state_dir, spec) as first:
        pass
    with open_job(journal, state_dir, spec) as again:
        pass
    assert first.id == again.id == job_id("net", str(spec.folder))
    assert job_id("net", "/a") != job_id("net", "/b")
    assert job_id("net", "/a", 2) == job_id("net", "/a") + "-2"


def test_two_runners_of_one_job_are_never_let_in(journal, state_dir, spec):
    """While one holds it, the other is told, fresh start or not."""
    with open_job(journal, state_dir, spec):
        for intent in (Intent.UNSAID, Intent.FRESH):
            with pytest.raises(AlreadyRunning), open_job(journal, state_dir, spec, intent):
                pytest.fail("two at once")


def test_a_job_that_another_runner_accepted_in_between_is_continued(
    journal, state_dir, spec, monkeypatch
):
    """Two first runs at one moment: who gets the lock late finds the job, and does not make two."""
    real = opening._held

    def slow(*of_job):
        monkeypatch.setattr(opening, "_held", real)
        with open_job(journal, state_dir, spec):  # the other one, from beginning to end
            pass
        return real(*of_job)

    monkeypatch.setattr(opening, "_held", slow)
    with open_job(journal, state_dir, spec) as job:
        assert [one.id for one in journal.jobs()] == [job.id]


def test_a_fresh_start_makes_a_job_of_its_own(journal, state_dir, spec):
    """The old one keeps its history; the newest is the one that is continued."""
    with open_job(journal, state_dir, spec) as old:
        pass
    with open_job(journal, state_dir, spec, Intent.FRESH) as new:
        assert new.id == f"{old.id}-2"
    with open_job(journal, state_dir, spec) as again:
        assert again.id == new.id


def test_a_changed_file_is_asked_about_and_then_kept(journal, state_dir, spec, tmp_path):
    """The difference is told; with --continue the new spec is the job's from then on."""
    with open_job(journal, state_dir, spec):
        pass
    changed = load_job(_written(tmp_path, ["false"]), {})
    with pytest.raises(SpecDiffers) as told, open_job(journal, state_dir, changed):
        pytest.fail("nobody had said so")
    assert "command" in told.value.lines[0]
    with open_job(journal, state_dir, changed, Intent.CONTINUE) as job:
        assert job.spec.command == ("false",)
    with open_known(journal, state_dir, job.id) as known:
        assert known.spec.command == ("false",)
        assert known.record.state == State.QUEUED


def test_a_job_nobody_accepted_is_not_known(journal, state_dir):
    """KeyError, and no folder is made for it."""
    with pytest.raises(KeyError), open_known(journal, state_dir, "net-000000"):
        pytest.fail("there is none")
    assert not (state_dir / "jobs").exists()


def test_a_folder_that_cannot_be_made_is_the_state_folders_fault(journal, state_dir, spec):
    """A file lies where the jobs' folder should be: the message names it and a way out."""
    (state_dir / "jobs").write_text("in the way")
    with (
        pytest.raises(JournalUnavailable, match="another folder with --state-dir"),
        open_job(journal, state_dir, spec),
    ):
        pytest.fail("there is no folder")
