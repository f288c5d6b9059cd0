"""`done`: what proves that a job is finished."""

import os
from dataclasses import replace

import pytest

from supervisor.core.state import JobState
from supervisor.runner.done import CLOCK_SLACK_S, check_done


@pytest.fixture
def ask(open_a_job):
    """Ask about an attempt that ended with exit code 0, or as the state says."""

    def asked(done, *, log=None, **state):
        job = open_a_job(done=done)
        attempt = job.folder.attempt(1)
        attempt.path.mkdir(parents=True)
        if log is not None:
            attempt.log.write_bytes(log)
        return check_done(job, replace(JobState(exit_code=0), **state), attempt)

    return asked


def test_a_job_that_does_not_say_has_no_answer(open_a_job):
    """Without `done`, exit code 0 is all that counts, and that is not decided here."""
    job = open_a_job()
    assert check_done(job, JobState(exit_code=0), job.folder.attempt(1)) == (None, "")


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ({"step": 30}, (True, "step 30 of 30")),
        ({"best_checkpoint": 31}, (True, "step 31 of 30")),
        ({"step": 29, "best_checkpoint": 10}, (False, "step 29 of 30")),
        ({}, (False, "step 0 of 30")),
        ({"step": 30, "exit_code": 1}, (False, "exit code 1")),
        ({"step": 30, "exit_code": None, "signal": 9}, (False, "no exit code")),
    ],
)
def test_a_step_counts_by_report_or_by_checkpoint(ask, state, found):
    """Either reaches it; a failed exit code is not made up for."""
    assert ask({"step": 30}, **state) == found


def test_another_exit_code_may_mean_done(ask):
    """`exit: 3` asks for 3, and 0 is then not enough."""
    assert ask({"exit": 3}, exit_code=3) == (True, "exit code 3")


def test_an_old_file_proves_nothing(ask, tmp_path):
    """Its time is before the job's first moment."""
    done = tmp_path / "DONE"
    done.touch()
    before_s = done.stat().st_mtime - CLOCK_SLACK_S - 60
    os.utime(done, (before_s, before_s))
    assert ask({"file": "DONE"}) == (False, f"{done} is older than this job")


def test_a_new_file_is_proof(ask, tmp_path):
    """Written while the job existed, or a moment before by another clock."""
    (tmp_path / "DONE").touch()
    assert ask({"file": "DONE"}) == (True, f"{tmp_path / 'DONE'} exists")


@pytest.mark.parametrize(
    ("log", "seen"),
    [
        (b"step 1\nTraining finished\n", True),
        (b" 10%|#\r100%|##########|" + b"x" * 70_000 + b"\rTraining finished", True),
        (b"not finished: Training\xff\n", False),
        (b"", False),
        (None, False),
    ],
    ids=["line", "behind a bar", "other words", "empty", "no log"],
)
def test_a_pattern_is_looked_for_in_the_output(ask, log, seen):
    """In each line, and in what a progress bar left behind its last carriage return."""
    assert ask({"regex": "^Training finished"}, log=log)[0] is seen


def test_a_pipe_in_the_place_of_the_log_is_not_waited_for(open_a_job):
    """Nobody will ever write to it: not seen, at once."""
    job = open_a_job(done={"regex": "x"})
    attempt = job.folder.attempt(1)
    attempt.path.mkdir(parents=True)
    os.mkfifo(attempt.log)
    assert check_done(job, JobState(exit_code=0), attempt)[0] is False
