"""A script that speaks over `workers.session`, under `supervise` as a person starts it."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

# Trains nothing; what it does besides counting is the test's.
SCRIPT = """
import json, os, pathlib, sys, threading, time
from workers import session
assert session.supervised()
start = session.resume_step() or 0
with open("began.jsonl", "a") as began:
    origin = {{"pid": os.getpid(), "step": start, "from": session.resume_path()}}
    began.write(json.dumps(origin) + chr(10))
scratch = session.scratch()
(scratch / "half-done").write_text("x")
pause = threading.Event()
def save(folder):
    (folder / "state.json").write_text(json.dumps(step))
step = start
{before}
while step < 40:
    pause.wait(0.03)
    step += 1
    session.progress(step, 40, loss=1 / step)
    {each}
    if session.stopping:
        session.publish(save, step)
        session.stopped(step)
        sys.exit(75)
session.finished(step)
"""


@pytest.fixture
def speaks(job) -> Any:
    """Make the job's script one that speaks: what it does before the loop, and at each step."""

    def make(before: str = "", each: str = "pass", **spec: Any) -> Any:
        script = SCRIPT.format(before=before, each=each)
        (job.folder / "speaks.py").write_text(script)
        job.write(
            command=["python", "speaks.py"],
            checkpoint={"preset": "session", "dir": "checkpoints"},
            resume=None,
            done=None,
            restart={"backoff": {"initial": "0s"}},
            **spec,
        )
        return job

    return make


def test_its_steps_are_the_jobs(speaks):
    """Nothing is printed, and still `show` knows the last step and `explain` where it was."""
    job = speaks()
    code, output = job.run()
    assert code == 0, output
    shown = job.show()
    assert shown["attempts"][0]["step"] == 40
    assert shown["attempts"][0]["cause"] == "completed"


def test_a_stop_is_heard_through_what_stands_in_between(speaks, eventually):
    """A shell in front of the script would die of the signal; the script saves and leaves first."""
    job = speaks(
        before="session.on_stop(lambda: print('callback'))",
        each="step == 10 and pathlib.Path('tenth').touch()",
    )
    job.write(command=["bash", "-c", "python speaks.py; exit $?"])
    run = job.start()
    eventually((job.folder / "tenth").exists)
    run.send_signal(signal.SIGTERM)
    output, _ = run.communicate(timeout=30)
    assert run.returncode == 75, output
    assert job.causes() == ["stopped"]
    assert "callback" in job.ask("logs", "steps")
    code, output = job.run()
    assert code == 0, output
    assert job.began()[1] > 0


def test_a_phase_is_no_hang(speaks):
    """Twice the heartbeat of silence and idleness, announced, ends nobody."""
    job = speaks(
        before="session.progress(step + 1)",
        each="""
    if step == 20:
        with session.phase("evaluation", 30):
            pause.wait(4)
""",
        timeouts={"heartbeat": "1.5s"},
        liveness=["heartbeat"],
    )
    code, output = job.run()
    assert code == 0, output
    assert job.causes() == ["completed"]


def test_a_phase_that_does_not_end_is_a_hang(speaks):
    """What was announced is bounded: silence beyond the limit of a phase counts."""
    job = speaks(
        before="session.progress(step + 1)",
        each="""
    if step == 5 and start == 0:
        session.publish(save, step)
        with session.phase("evaluation", 2):
            pause.wait(60)
""",
        timeouts={"heartbeat": "1s"},
        liveness=["heartbeat"],
    )
    code, output = job.run()
    assert code == 0, output
    assert job.causes() == ["hang", "completed"]


def test_output_alone_is_no_sign_where_only_steps_count(speaks):
    """A script that prints for ever and does no step is hung."""
    job = speaks(
        each="""
    session.publish(save, step, keep=2)
    if step == 5 and start == 0:
        while True:
            print("still here", flush=True)
            pause.wait(0.2)
""",
        timeouts={"heartbeat": "1.5s"},
        liveness=["heartbeat"],
    )
    code, output = job.run()
    assert code == 0, output
    assert job.causes() == ["hang", "completed"]
    assert job.began() == [0, 5]


def test_its_own_error_is_the_evidence(speaks):
    """An uncaught error is reported by itself, and `explain` tells what it says."""
    job = speaks(each="if step == 3: raise ModuleNotFoundError('no module named antigravity')")
    job.write(restart={"budget": 0})
    code, output = job.run()
    assert code == 1, output
    told = job.ask("explain", "steps")
    assert "no module named antigravity" in told
    assert "at step 3" in told


def test_scratch_is_kept_until_success(speaks):
    """It survives a kill and goes in the end; with --keep-scratch it stays."""
    job = speaks(
        each="""
    if step == 10:
        session.publish(save, step)
        (scratch / "late").touch()
        if start == 0: os.kill(os.getpid(), 9)
""",
    )
    code, output = job.run("--keep-scratch")
    assert code == 0, output
    assert job.began() == [0, 10]
    assert len(scratch_of(job)) == 1
    code, output = job.run("--fresh")
    assert code == 0, output
    assert len(scratch_of(job)) == 1  # that of the first


def test_the_newest_of_both_tiers_is_used_and_memory_is_given_back(speaks):
    """It resumes from a snapshot after a SIGKILL; after a stop the memory is empty."""
    job = speaks(
        each="""
    session.publish(save, step, tier="memory", keep=2)
    if step == 10: session.publish(save, step)
    pathlib.Path("tier").write_text(os.environ["SUPERVISE_MEMORY_TIER"])
    if step == 25 and start == 0: os.kill(os.getpid(), 9)
    if step == 30: os.kill(os.getppid(), 15)
"""
    )
    run = job.start()
    output, _ = run.communicate(timeout=30)
    began = [json.loads(line) for line in (job.folder / "began.jsonl").read_text().splitlines()]
    assert [one["step"] for one in began] == [0, 25], output
    assert began[1]["from"].startswith("/dev/shm/")
    assert run.returncode == 75, output
    assert not Path((job.folder / "tier").read_text()).exists()
    code, output = job.run()
    assert code == 0, output
    assert job.began()[2] >= 30


def scratch_of(job) -> list[Path]:
    """What lies in the scratch folders of all jobs."""
    return list(job.state_dir.glob("jobs/*/scratch/half-done"))
