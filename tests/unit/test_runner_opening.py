"""Taking a job in hand: found again, accepted once, never by two."""

import json

import pytest

from supervisor.core.causes import State
from supervisor.journal import Journal, JournalUnavailable
from supervisor.runner import opening
from supervisor.runner.control import conclude_cancel
from supervisor.runner.locks import AlreadyRunning
from supervisor.runner.opening import (
    CancelledForGood,
    Intent,
    SpecDiffers,
    job_id,
    next_generation,
    open_job,
    open_known,
    requeue,
)
from supervisor.runner.remove import remove
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
    real = opening.held

    def slow(*of_job):
        monkeypatch.setattr(opening, "held", real)
        with open_job(journal, state_dir, spec):  # the other one, from beginning to end
            pass
        return real(*of_job)

    monkeypatch.setattr(opening, "held", slow)
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


def test_a_cancelled_job_is_opened_by_nobody(journal, state_dir, spec):
    """Neither by the same command nor by its id, and no item is tried again; its events stay."""
    with open_job(journal, state_dir, spec) as job:
        pass
    conclude_cancel(journal, state_dir, job.id, "anna")
    events = journal.events(job.id)
    for intent in (Intent.UNSAID, Intent.CONTINUE):
        with (
            pytest.raises(CancelledForGood, match=f"{job.id} was cancelled for good"),
            open_job(journal, state_dir, spec, intent),
        ):
            pytest.fail("it is over")
    with pytest.raises(CancelledForGood), open_known(journal, state_dir, job.id):
        pytest.fail("it is over")
    with pytest.raises(CancelledForGood):
        requeue(journal, state_dir, job.id, [1])
    assert journal.events(job.id) == events


def test_a_fresh_start_follows_a_cancelled_job(journal, state_dir, spec):
    """It is a job of its own."""
    with open_job(journal, state_dir, spec) as job:
        pass
    conclude_cancel(journal, state_dir, job.id, "anna")
    with open_job(journal, state_dir, spec, Intent.FRESH) as new:
        assert new.id == f"{job.id}-2"
    with open_job(journal, state_dir, spec) as again:
        assert again.id == new.id


def test_a_removed_fresh_start_leaves_a_gap(journal, state_dir, spec):
    """The first is removed and the second kept: the next is the third, not the second again."""
    with open_job(journal, state_dir, spec) as first:
        pass
    with open_job(journal, state_dir, spec, Intent.FRESH) as second:
        pass
    remove(state_dir, journal, first.id)
    with open_job(journal, state_dir, spec, Intent.FRESH) as third:
        assert (second.id, third.id) == (f"{first.id}-2", f"{first.id}-3")
    with open_job(journal, state_dir, spec) as again:
        assert again.id == third.id


def test_the_next_fresh_start_is_beyond_all_that_are_taken():
    """Ids of other jobs do not count, however alike."""
    first = job_id("net", "/a")
    assert next_generation([], "net", "/a") == 1
    assert next_generation([first], "net", "/a") == 2
    assert next_generation([f"{first}-7", first], "net", "/a") == 8
    others = [job_id("net", "/b", 9), f"{first}-x", f"{first}x-9", f"x{first}-9", f"{first}-"]
    assert next_generation(others, "net", "/a") == 1


def test_the_gpus_that_it_was_placed_on_are_part_of_the_opening(journal, state_dir, spec):
    """For who started the runner; nobody else has a preference."""
    with open_job(journal, state_dir, spec) as job:
        assert job.prefer == ()
    with open_known(journal, state_dir, job.id, ("GPU-a",)) as placed:
        assert placed.prefer == ("GPU-a",)
