"""The evidence of an ended attempt, gathered from whatever is left of it."""

import json
import os
from dataclasses import replace

import pytest

from supervisor.core.causes import Cause
from supervisor.core.deadlines import Timeouts
from supervisor.core.evidence import Breach, DeadlineName, GpuUse, Limit, Oom
from supervisor.core.gpu import xid_trouble
from supervisor.core.state import JobState
from supervisor.runner.gather import Circumstances, gather, write_evidence
from supervisor.runner.home import AttemptFolder

ENDED = JobState(attempt=1, exit_code=1, exited=True)


@pytest.fixture
def ask(open_a_job):
    """Gather the evidence of attempt 1 with this log."""

    def asked(log=None, state=ENDED, around=None, **fields):
        job = open_a_job(**fields)
        folder = job.folder.attempt(1)
        folder.path.mkdir(parents=True)
        if log is not None:
            folder.log.write_text(log)
        return gather(job, state, around or Circumstances())

    return asked


def test_the_log_gives_step_and_error(ask):
    """The last step it reported and the first root error, with the line that says it best."""
    seen = ask("step 7/10 loss 0.1\nRuntimeError: CUDA out of memory. Tried\n")
    assert (seen.step, seen.progressed, seen.exit_code) == (7, True, 1)
    assert seen.root_error.cause is Cause.CUDA_OOM
    assert seen.error_line.startswith("RuntimeError")


def test_exit_code_0_is_not_accused_of_what_its_log_says(ask):
    """A script that printed an error and ended well had caught it."""
    seen = ask("CUDA out of memory\n", JobState(attempt=1, exit_code=0))
    assert (seen.root_error, seen.error_line) == (None, None)


def test_a_log_that_is_not_there_or_no_log_is_no_obstacle(open_a_job):
    """Deleted, a folder, a pipe: the end is concluded from the rest, at once."""
    job = open_a_job()
    folder = job.folder.attempt(1)
    assert gather(job, ENDED, Circumstances()).error_line is None
    folder.log.mkdir(parents=True)
    assert gather(job, ENDED, Circumstances()).exit_code == 1
    folder.log.rmdir()
    os.mkfifo(folder.log)
    assert gather(job, ENDED, Circumstances()).exit_code == 1


@pytest.mark.parametrize(
    ("state", "rebooted", "words"),
    [
        (JobState(attempt=1), False, (True, False)),
        (JobState(attempt=1), True, (False, True)),
        (JobState(attempt=1, exit_code=3), False, (False, False)),
        (JobState(attempt=1, signal=9), True, (False, False)),
    ],
)
def test_a_lost_runner_explains_only_what_nothing_else_does(ask, state, rebooted, words):
    """An exit that was journaled before the runner died keeps its own explanation."""
    seen = ask(state=state, around=Circumstances(lost=True, rebooted=rebooted))
    assert (seen.runner_lost, seen.host_rebooted) == words


@pytest.mark.parametrize(
    ("log", "state", "step", "progressed"),
    [
        ("nothing to read", JobState(attempt=1, resumed_step=40), 40, False),
        ("nothing to read", JobState(attempt=1, resumed_step=40, step=44), 44, True),
        ("step 40/90", JobState(attempt=1, resumed_step=40), 40, False),
        ("step 41/90", JobState(attempt=1, resumed_step=40), 41, True),
        ("nothing", JobState(attempt=1, resumed_step=40, saved_step=50), 40, True),
        ("nothing", JobState(attempt=1), None, False),
    ],
)
def test_progress_is_a_step_beyond_where_it_began(ask, log, state, step, progressed):
    """The log has the last word, then what was seen while it ran, then where it began."""
    seen = ask(log, state)
    assert (seen.step, seen.progressed) == (step, progressed)


def test_what_the_runner_saw_of_the_attempt_becomes_evidence(ask):
    """Memory, GPUs and silence: from the state what was journaled, the rest from the runner."""
    breach = Breach(Limit.GPU_MEMORY, 2, 1, "GPU 0")
    fallen = xid_trouble("GPU-a", 79, 1.0)
    oom = Oom(1, of_limit=True, source="cgroup v2", limit_bytes=9, peak_bytes=9)
    state = replace(
        ENDED,
        breach=breach,
        gpus=("GPU-a", "GPU-b"),
        troubles=(fallen,),
        fired=DeadlineName.HEARTBEAT,
        seen="silent for 60 s, and idle",
    )
    curve = (GpuUse(2.0, 5), GpuUse(4.0, 7))
    around = Circumstances(
        survivors=(7, 8), oom=oom, oom_kills=2, gpu_curve=curve, no_room="/data is full"
    )
    seen = ask(state=state, around=around)
    assert (seen.breach, seen.gpus, seen.gpu_troubles) == (breach, state.gpus, (fallen,))
    assert (seen.hang, seen.deadline) == ("silent for 60 s, and idle", DeadlineName.HEARTBEAT)
    assert (seen.oom, seen.oom_kills, seen.gpu_curve) == (oom, 2, curve)
    assert (seen.survivors, seen.no_room) == ((7, 8), "/data is full")


def test_the_heartbeat_that_was_learned_is_the_one_that_is_told(ask):
    """Not the one that a job begins with."""
    timeouts = Timeouts(heartbeat_s=720.0, heartbeat_auto=True)
    state = replace(ENDED, timeouts=timeouts, fired=DeadlineName.HEARTBEAT)
    assert ask(state=state).deadline_s == 720.0


def test_a_deadline_that_was_journaled_explains_an_end_without_status(ask):
    """The runner died while it killed a hung worker: that was a hang, not a lost runner."""
    hung = JobState(attempt=1, fired=DeadlineName.HEARTBEAT, seen="and idle")
    seen = ask(state=hung, around=Circumstances(lost=True))
    assert (seen.runner_lost, seen.hang) == (False, "and idle")


def test_the_evidence_is_left_beside_the_log(ask, tmp_path):
    """As JSON; a folder that cannot be written to costs nothing, the journal has it too."""
    breach = Breach(Limit.GPU_MEMORY_SOFT, 2, 1)
    fallen = xid_trouble("GPU-a", 79, 1.0)
    seen = ask("step 7/10\n", replace(ENDED, breach=breach, troubles=(fallen,)))
    folder = AttemptFolder(tmp_path / "attempts" / "1")
    write_evidence(folder, seen)
    left = json.loads(folder.evidence.read_text())
    assert left["step"] == 7
    assert left["breach"]["limit"] == "gpu_memory_soft"
    assert [one["code"] for one in left["gpu_troubles"]] == [79]
    folder.evidence.unlink()
    folder.evidence.mkdir()
    write_evidence(folder, seen)


@pytest.mark.parametrize(("finished", "done"), [(True, True), (False, False), (None, True)])
def test_exit_code_0_of_the_trainer_is_not_done_unless_it_said_so(ask, finished, done):
    """Code of the user's that ends the process in the middle is no success."""
    plan = {"command": None, "train": {"entry": "pkg:build", "steps": 5}, "checkpoint": None}
    around = Circumstances(finished=finished)
    seen = ask("", JobState(attempt=1, exit_code=0), around, **plan, resume=None)
    assert seen.done is done
