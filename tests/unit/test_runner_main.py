"""The detached runner's command line, and what it says when it cannot begin."""

import pytest

from supervisor.core.causes import State
from supervisor.journal import Journal
from supervisor.runner import __main__ as detached
from supervisor.runner.control import conclude_cancel
from supervisor.runner.exits import Exit
from supervisor.runner.run import Outcome
from supervisor.spec.frozen import freeze
from supervisor.spec.load import load_job
from tests.golden.journal import make_v1

JOB = "digits-0a1b2c"


@pytest.fixture
def shelf(state_dir, tmp_path):
    """Give a state folder with an accepted job."""
    (tmp_path / "job.yaml").write_text('{"name": "digits", "command": ["true"]}')
    journal = Journal.open(state_dir)
    accepted = make_v1.job("digits")
    fields = {name: getattr(accepted, name) for name in accepted.__dataclass_fields__}
    frozen = freeze(load_job(tmp_path / "job.yaml", {}))
    journal.create_job(type(accepted)(**fields | {"spec": frozen}))
    journal.close()
    return state_dir


@pytest.fixture
def runs(monkeypatch):
    """Note the jobs that would run, and how."""
    found = []

    def run(job, **options):
        found.append((job.id, job.prefer, options["stopped_by"]))
        return Outcome(State.STOPPED, forced=False, why="")

    monkeypatch.setattr(detached, "run", run)
    return found


@pytest.mark.parametrize(
    "words",
    [
        "",
        "JOB",
        "--state-dir",
        "--state-dir DIR",
        "--state-dir DIR --gpus",
        "--state-dir DIR --gpus GPU-a",
        "--state-dir DIR --what x JOB",
        "--state-dir DIR JOB more",
        "--gpus GPU-a JOB",
        "--state-dir DIR --help",
    ],
)
def test_what_is_not_understood_is_refused(words, capsys, tmp_path, monkeypatch):
    """With how it is called; nothing is made on disk."""
    monkeypatch.chdir(tmp_path)
    assert detached.main(words.split()) == Exit.USAGE
    assert capsys.readouterr().err == detached.USAGE
    assert list(tmp_path.iterdir()) == []


def test_options_reach_the_run(shelf, runs):
    """The GPUs are those that the daemon placed it on."""
    whole = ["--state-dir", str(shelf)]
    assert detached.main([*whole, JOB]) == Exit.STOPPED
    assert detached.main([*whole, "--gpus", "GPU-a,GPU-b", JOB]) == Exit.STOPPED
    assert detached.main(["--gpus", "", "--stopped-by", "anna", *whole, JOB]) == Exit.STOPPED
    assert runs == [(JOB, (), None), (JOB, ("GPU-a", "GPU-b"), None), (JOB, (), "anna")]


def test_damaged_surroundings_start_nothing(shelf, runs, capsys):
    """A person is needed: the job would run in another environment than it was meant to."""
    folder = shelf / "jobs" / JOB
    folder.mkdir(parents=True)
    (folder / "surroundings.json").write_text("{")
    assert detached.main(["--state-dir", str(shelf), JOB]) == Exit.HOLDING
    assert "surroundings.json: it is no JSON" in capsys.readouterr().err
    assert runs == []


def test_a_job_that_is_unknown_or_cancelled_is_not_run(shelf, runs, capsys):
    """Each says why."""
    assert detached.main(["--state-dir", str(shelf), "net-000000"]) == Exit.USAGE
    assert "there is no job net-000000" in capsys.readouterr().err
    journal = Journal.open(shelf)
    conclude_cancel(journal, shelf, JOB, "anna")
    journal.close()
    assert detached.main(["--state-dir", str(shelf), JOB]) == Exit.USAGE
    assert "was cancelled for good" in capsys.readouterr().err
    assert runs == []


def test_a_fault_of_ours_is_not_taken_for_an_unknown_job(shelf, monkeypatch):
    """A KeyError from within a run is a bug, and shows as one."""

    def faulty(*_args, **_options):
        raise KeyError("inner")

    monkeypatch.setattr(detached, "run", faulty)
    with pytest.raises(KeyError, match="inner"):
        detached.main(["--state-dir", str(shelf), JOB])
