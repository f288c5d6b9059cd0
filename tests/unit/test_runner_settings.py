"""What a job.yaml means to its runner."""

import signal

import pytest

from supervisor.checkpoint import StepFromJson, StepFromName, StepFromPointer
from supervisor.core.causes import Cause
from supervisor.core.deadlines import Timeouts
from supervisor.core.decide import Backoff
from supervisor.runner.settings import DoneRule


def test_the_least_job_has_the_documented_defaults(open_a_job, tmp_path):
    """Its folder, the default deadlines and policy, no checkpoints, TERM, exit code 0 is done."""
    settings = open_a_job().settings
    assert settings.cwd == tmp_path
    assert settings.timeouts == Timeouts(600.0, 1800.0, 60.0, None, heartbeat_auto=True)
    assert (settings.policy.budget, settings.policy.window_s) == (5, None)
    assert settings.policy.backoff == Backoff(1.0, 300.0, 2.0, 0.1)
    assert (settings.layout, settings.done, settings.in_place) == (None, None, False)
    assert settings.stop_signals == (signal.SIGTERM,)


def test_what_a_job_says_is_what_its_runner_gets(open_a_job):
    """Durations in seconds, signals by number, overrides by cause."""
    settings = open_a_job(
        timeouts={"startup": "2m", "heartbeat": "90s", "stop": "5s", "total": "7d"},
        restart={
            "budget": 3,
            "window": "1h",
            "backoff": {"initial": "2s", "max": "1m", "factor": 3, "jitter": 0},
            "on": {"cuda_oom": "hold"},
        },
        stop={"signals": ["USR1", "TERM"]},
        liveness=["output"],
    ).settings
    assert settings.timeouts == Timeouts(120.0, 90.0, 5.0, 604800.0)
    assert (settings.policy.budget, settings.policy.window_s) == (3, 3600.0)
    assert settings.policy.backoff == Backoff(2.0, 60.0, 3.0, 0.0)
    assert settings.policy.on[Cause.CUDA_OOM] == "hold"
    assert settings.stop_signals == (signal.SIGUSR1, signal.SIGTERM)
    assert settings.signs == {"output"}


@pytest.mark.parametrize(
    ("step", "source"),
    [
        (None, StepFromName(None)),
        (r"step-(\d+)", StepFromName(r"step-(\d+)")),
        ({"json": "s.json", "key": "a.b"}, StepFromJson("s.json", "a.b")),
        ({"pointer": "latest"}, StepFromPointer("latest")),
    ],
)
def test_the_step_comes_from_where_the_job_says(open_a_job, tmp_path, step, source):
    """Name, JSON file or pointer; the folder is relative to the job's."""
    checkpoint = {"dir": "out", "glob": "*.pt", "keep": 2, "pointer": "last"}
    layout = open_a_job(
        checkpoint=checkpoint | ({} if step is None else {"step": step}),
        resume={"mode": "inplace"},
    ).settings.layout
    assert layout.root == tmp_path / "out"
    assert layout.step == source
    assert str(layout.pointer) == "last"


def test_a_job_that_never_resumes_has_no_checkpoints(open_a_job):
    """`resume: none` says so, whatever the checkpoint section says."""
    given = {"checkpoint": {"dir": "out", "glob": "*.pt"}, "resume": {"mode": "none"}}
    assert open_a_job(**given).settings.layout is None


@pytest.mark.parametrize(
    ("done", "rule"),
    [
        ({"exit": 0}, None),
        ({"exit": 3}, DoneRule(None, None, None, 3)),
        ({"step": 9}, DoneRule(9, None, None, 0)),
        ({"regex": "end"}, DoneRule(None, None, "end", 0)),
    ],
)
def test_done_is_a_rule_only_where_it_asks_for_more_than_exit_code_0(open_a_job, done, rule):
    """Every condition that is given, and exit code 0 unless another is named."""
    assert open_a_job(done=done).settings.done == rule


TRAINED = {"train": {"entry": "digits:build", "epochs": 3}, "command": None}


def test_a_training_job_is_done_by_exit_code_0_and_nothing_else(open_a_job, tmp_path):
    """Said outright, so that its code for `stopped` is never taken for done."""
    settings = open_a_job(**TRAINED).settings

    assert settings.done == DoneRule(None, None, None, 0)
    assert settings.layout.root == tmp_path / "out" / "checkpoints"
    assert settings.layout.require == ("manifest.json",)
    assert settings.layout.step == StepFromName(r"step-(\d+)$")
    assert settings.signs == {"heartbeat", "checkpoint", "gpu", "cpu"}


@pytest.mark.parametrize(
    ("job", "snapshots"),
    [
        ({}, False),
        (TRAINED, True),
        ({**TRAINED, "train": {**TRAINED["train"], "snapshot": None}}, False),
        ({"checkpoint": {"preset": "session"}}, True),
        (
            {"checkpoint": {"preset": "session"}, "resume": {"mode": "append", "argv": ["{path}"]}},
            True,
        ),
        ({"checkpoint": {"preset": "session"}, "resume": {"mode": "inplace"}}, False),
        ({"checkpoint": {"preset": "session"}, "resume": {"mode": "none"}}, False),
        ({"checkpoint": {"preset": "hf"}}, False),
    ],
)
def test_snapshots_are_for_jobs_that_publish_and_are_told_where_to_go_on(
    open_a_job, job, snapshots
):
    """A script that looks for its latest checkpoint itself would never find one in memory."""
    assert open_a_job(**job).settings.snapshots is snapshots
