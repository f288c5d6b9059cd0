"""Which job is meant, and whether anybody looks after it."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervisor.cli.jobs import NoSuchJob, find_job
from supervisor.core.events import RunnerStarted
from supervisor.host import identity
from supervisor.journal import Journal
from supervisor.runner.alive import runner_gone, runner_lives

NewJob = Callable[..., Any]


@pytest.fixture
def journal(new_job: NewJob, tmp_path: Path) -> Journal:
    """Two folders with a job `digits` each, one of them started afresh; a third with `resnet`."""
    for name in ("a", "b", "c", "elsewhere"):
        (tmp_path / name).mkdir(exist_ok=True)
    new_job("digits-aaaaaa", folder=tmp_path / "a")
    new_job("digits-bbbbbb", folder=tmp_path / "b")
    new_job("digits-bbbbbb-2", folder=tmp_path / "b")
    return new_job("resnet-cccccc", name="resnet", folder=tmp_path / "c").journal


@pytest.mark.parametrize(
    ("text", "where", "expected"),
    [
        ("digits-aaaaaa", "elsewhere", "digits-aaaaaa"),
        ("digits-bbbbbb", "elsewhere", "digits-bbbbbb"),
        ("digits-a", "elsewhere", "digits-aaaaaa"),
        ("digits-b", "elsewhere", "digits-bbbbbb-2"),
        ("resnet", "elsewhere", "resnet-cccccc"),
        ("r", "elsewhere", "resnet-cccccc"),
        ("digits", "a", "digits-aaaaaa"),
        ("digits", "b", "digits-bbbbbb-2"),
        ("dig", "b", "digits-bbbbbb-2"),
        (None, "b", "digits-bbbbbb-2"),
        (None, "c", "resnet-cccccc"),
        ("../a", "c", "digits-aaaaaa"),
        (".", "c", "resnet-cccccc"),
    ],
)
def test_a_job_is_found(
    text: str | None, where: str, expected: str, journal: Journal, tmp_path: Path
) -> None:
    """By id, beginning of an id, name, folder; the current folder decides, then the newest."""
    assert find_job(journal, text, tmp_path / where).id == expected


def test_a_job_is_found_by_its_job_file(journal: Journal, tmp_path: Path) -> None:
    """The path that `run` was given works for the other verbs too; another file's does not."""
    (tmp_path / "c/job.yaml").touch()
    (tmp_path / "c/other.yaml").touch()

    assert find_job(journal, "job.yaml", tmp_path / "c").id == "resnet-cccccc"
    with pytest.raises(NoSuchJob):
        find_job(journal, "other.yaml", tmp_path / "c")


def test_a_folder_reached_by_a_link_is_the_folder(journal: Journal, tmp_path: Path) -> None:
    """Where the current folder is a link, its job is found all the same."""
    (tmp_path / "link").symlink_to(tmp_path / "c")

    assert find_job(journal, None, tmp_path / "link").id == "resnet-cccccc"


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        ("resnt", "c", "did you mean resnet?"),
        ("digits", "elsewhere", "may mean several jobs"),
        ("dig", "c", "digits-aaaaaa"),
        ("", "elsewhere", "no such job"),
        (None, "elsewhere", "no job was started from"),
        ("digits-bbbbbb-22", "elsewhere", "no such job"),
        ("a\0b", "elsewhere", "no such job"),
        ("x" * 5000, "elsewhere", "no such job"),
    ],
)
def test_no_job_or_several(
    text: str | None, where: str, said: str, journal: Journal, tmp_path: Path
) -> None:
    """What is not clear is refused with exit code 2, and what there is is listed."""
    with pytest.raises(NoSuchJob, match=said.replace("?", r"\?")) as caught:
        find_job(journal, text, tmp_path / where)

    assert caught.value.exit_code == 2
    assert "digits-bbbbbb-2" in caught.value.message


def test_a_live_runner_is_known_by_pid_start_and_boot(new_job: NewJob) -> None:
    """This very process lives; the same pid of another start or another boot does not."""
    pid, boot = os.getpid(), identity.boot_id()
    ticks = identity.start_ticks(pid) or 0
    story = new_job()

    def lives(event: RunnerStarted) -> bool:
        story.saw(event)
        return runner_lives(story.journal.job(story.id))

    assert runner_gone(story.journal.job(story.id))  # accepted, and nobody took it up
    assert lives(RunnerStarted(pid, ticks, boot))
    assert not lives(RunnerStarted(pid, ticks + 1, boot))
    assert not lives(RunnerStarted(pid, ticks, "another-boot"))
    assert not lives(RunnerStarted(2**22 - 1, ticks, boot))


def test_a_runner_that_nobody_reaped_is_gone(new_job: NewJob) -> None:
    """A zombie has its pid and start time still, and does not live."""
    child = subprocess.Popen(["sleep", "600"])
    story = new_job()
    story.saw(RunnerStarted(child.pid, identity.start_ticks(child.pid) or 0, identity.boot_id()))
    assert runner_lives(story.journal.job(story.id))

    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    try:
        assert not runner_lives(story.journal.job(story.id))
    finally:
        child.wait()


def test_a_job_that_ended_needs_no_runner(three_faults: Any) -> None:
    """A job that is done is not reported as lost, whoever ran it."""
    three_faults.journal.append(
        three_faults.id, RunnerStarted(2**22 - 1, 1, "another-boot"), three_faults.state
    )

    assert not runner_gone(three_faults.journal.job(three_faults.id))
