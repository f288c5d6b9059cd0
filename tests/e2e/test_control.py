"""Jobs asked to stop, killed and cancelled from outside, without a daemon; detached runners."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import pytest

from supervisor.core.causes import State
from supervisor.journal import Journal
from supervisor.queue.model import Entry, Needs, Phase
from supervisor.queue.store import Queue, Submitted
from supervisor.runner import surroundings
from supervisor.runner.control import conclude_cancel, conclude_stop, kill, stop
from supervisor.runner.home import JobFolder
from supervisor.runner.locks import AlreadyRunning
from supervisor.runner.remove import remove

LONG = ["python", "steps.py", "--steps", "100000"]
# Leaves only when it is killed, and has a grandchild in a session of its own.
STUBBORN = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    open("grandchild.tmp", "w").write(str(os.getpid()))
    os.rename("grandchild.tmp", "grandchild")
"""


@pytest.fixture
def known(job):
    """What the journal has of the job now."""

    def read():
        with closing(Journal.open(job.state_dir)) as journal:
            return journal.jobs()[-1]

    return read


@pytest.fixture
def detached(job):
    """Start a runner without a terminal, as a daemon does."""
    started = []

    def start(job_id, *options, **env):
        command = [sys.executable, "-m", "supervisor.runner", "--state-dir", str(job.state_dir)]
        runner = subprocess.Popen(
            [*command, *options, job_id],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=os.environ | env,
            cwd="/",
            text=True,
        )
        started.append(runner)
        return runner

    yield start
    for runner in started:
        if runner.poll() is None:
            runner.kill()
        runner.communicate()


def running(job, eventually):
    """Start the job, until it has saved something."""
    job.write(command=LONG)
    run = job.start()
    eventually(lambda: job.saved(3))
    return run


def accepted(job, known):
    """Have the job accepted, and stopped, before it made a step."""
    job.write(command=LONG)
    run = job.start()
    while run.poll() is None and not (job.folder / "began.jsonl").exists():
        run.poll()
    job.stop(run)
    return known().id


def test_a_runner_that_is_asked_to_stop_stops_its_job_gracefully(job, known, eventually):
    """From another process, by what the journal says; afterwards nobody is there to ask."""
    run = running(job, eventually)
    assert stop(known())
    output, _ = run.communicate(timeout=30)
    assert run.returncode == 75, output
    assert job.causes() == ["stopped"]
    assert not stop(known())


@pytest.mark.parametrize("stopping", [False, True])
def test_a_killed_job_is_gone_with_all_that_it_started(job, known, eventually, alive, stopping):
    """Also when it was asked to stop before, and takes its time: one more signal is enough."""
    script = job.folder / "steps.py"
    script.write_text(STUBBORN + script.read_text().replace("fcntl.flock(alone", "0 and (alone"))
    job.write(command=LONG, timeouts={"stop": 600})
    run = job.start()
    eventually(lambda: (job.folder / "grandchild").exists() and job.saved(2))
    grandchild = int((job.folder / "grandchild").read_text())
    if stopping:
        assert stop(known())
        eventually(lambda: known().state == "stopping")
    with closing(Journal.open(job.state_dir)) as journal:
        assert kill(journal, known())
    run.communicate(timeout=30)
    assert run.returncode == 130
    assert not alive(grandchild)
    stops = [one["fields"]["forced"] for one in job.events() if one["kind"] == "StopRequested"]
    assert stops == [False, True]


def test_a_cancelled_job_is_never_run_again_but_by_a_fresh_start(job, known, eventually):
    """Not while a runner has it; then `run` says so and exits 2, and --fresh begins anew."""
    run = running(job, eventually)
    with closing(Journal.open(job.state_dir)) as journal:
        with pytest.raises(AlreadyRunning):
            conclude_cancel(journal, job.state_dir, known().id, "supervise cancel")
        stop(known())
        run.communicate(timeout=30)
        conclude_cancel(journal, job.state_dir, known().id, "supervise cancel")
    for options in ((), ("--continue",)):
        code, output = job.run(*options)
        assert code == 2, output
        assert "was cancelled for good: nothing resumes it" in output
    began = len(job.began())
    job.write(command=["python", "steps.py", "--steps", "3"])
    code, output = job.run("--fresh")
    assert code == 0, output
    assert job.began()[began:] == [0]
    assert [one["state"] for one in job.listed()] == ["cancelled", "succeeded"]


@pytest.mark.parametrize("state", ["cancelled", "stopped"])
def test_a_job_whose_runner_was_killed_is_seen_out_before_it_is_ended(
    job, known, eventually, alive, state
):
    """What is left of its worker is ended, and its last attempt has a cause like any other."""
    conclude = {"cancelled": conclude_cancel, "stopped": conclude_stop}[state]
    run = running(job, eventually)
    worker = job.worker()
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=30)
    assert known().state == "running"
    with closing(Journal.open(job.state_dir)) as journal:
        conclude(journal, job.state_dir, known().id, "supervise cancel")
    assert not alive(worker)
    assert (known().state, job.causes()) == (state, ["runner_lost"])


def test_a_stop_or_cancel_that_is_killed_midway_converges(job, known, eventually):
    """Killed at any moment, and asked again: it is cancelled, once."""
    run = running(job, eventually)
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=30)
    script = (
        "import sys\nfrom pathlib import Path\nfrom supervisor.journal import Journal\n"
        "from supervisor.runner.control import conclude_cancel\nprint(flush=True)\n"
        "state = Path(sys.argv[1])\n"
        "conclude_cancel(Journal.open(state), state, sys.argv[2], 'anna')\n"
    )
    command = [sys.executable, "-c", script, str(job.state_dir), known().id]
    for wait_s in (0.05, 0.15, 0.3, 0.5, None):
        asking = subprocess.Popen(command, stdout=subprocess.PIPE)
        asking.stdout.readline()
        try:
            asking.wait(timeout=wait_s)
        except subprocess.TimeoutExpired:
            asking.kill()
        asking.communicate()
        # The runner that sees it out is nobody's child now, and goes on; one at a time.
        eventually(lambda: _free(job, known))
    assert known().state == "cancelled"
    assert [one["kind"] for one in job.events()].count("JobCancelled") == 1
    assert job.causes() == ["runner_lost"]


def _free(job, known):
    try:
        with closing(Journal.open(job.state_dir)) as journal:
            conclude_stop(journal, job.state_dir, known().id, "test")
    except AlreadyRunning:
        return False
    return True


def test_a_removed_job_starts_anew_from_what_its_script_had_saved(job, known, eventually):
    """Its history is gone; the user's checkpoints are not."""
    run = running(job, eventually)
    with closing(Journal.open(job.state_dir)) as journal:
        with pytest.raises(AlreadyRunning):
            remove(job.state_dir, journal, known().id)
        stop(known())
        run.communicate(timeout=30)
        remove(job.state_dir, journal, known().id)
    assert job.listed() == []
    assert list((job.state_dir / "jobs").iterdir()) == []
    newest = max(int(path.stem.rpartition("-")[2]) for path in job.folder.glob("out/ckpt-*.pt"))
    job.write(command=["python", "steps.py", "--steps", str(newest + 3)])
    code, output = job.run()
    assert code == 0, output
    assert job.began()[-1] >= 3
    assert job.causes() == ["completed"]


def test_a_detached_runner_gives_its_worker_the_surroundings_of_who_submitted(
    job, known, detached, eventually
):
    """Environment, umask and limits; of its own environment the worker sees none."""
    script = job.folder / "steps.py"
    honest = script.read_text()
    job_id = accepted(job, known)
    told = (
        "import json as j, os as o, resource as r\n"
        "u = o.umask(0); o.umask(u)\n"
        "say = {'env': dict(o.environ), 'umask': u, 'files': r.getrlimit(r.RLIMIT_NOFILE)[0]}\n"
        "open('told.tmp', 'w').write(j.dumps(say)); o.rename('told.tmp', 'told')\n"
    )
    script.write_text(told + honest)
    given = {"LD_PRELOAD": "", "PYTHONWARNINGS": "ignore", "A": "b"}
    path = {"PATH": os.environ["PATH"]}
    folder = JobFolder.of(job.state_dir, job_id)
    limits = {"nofile": [512, 512], "cpu": [-1, -1]}
    surroundings.write(folder.path, {"env": given | path, "umask": 0o027, "limits": limits})
    assert folder.surroundings.exists()
    runner = detached(job_id, OF_THE_DAEMON="x")
    eventually((job.folder / "told").exists)
    seen = json.loads((job.folder / "told").read_text())
    assert given.items() <= seen["env"].items()
    assert "OF_THE_DAEMON" not in seen["env"]
    assert (seen["umask"], seen["files"]) == (0o027, 512)
    assert stop(known())
    assert runner.wait(timeout=30) == 75


def test_a_detached_runner_whose_surroundings_are_damaged_says_so(job, known, detached):
    """In words, with exit code 3; no attempt was begun."""
    job_id = accepted(job, known)
    before = job.attempts()
    JobFolder.of(job.state_dir, job_id).surroundings.write_text('{"format": 9}')
    runner = detached(job_id)
    _, said = runner.communicate(timeout=30)
    assert runner.returncode == 3
    assert "of a newer supervise (format 9)" in said
    assert "Traceback" not in said
    assert job.attempts() == before


@pytest.mark.parametrize(
    ("phase", "state"),
    [
        (Phase.WAITING, State.QUEUED),
        (Phase.STARTED, State.RUNNING),
        (Phase.ENDED, State.STOPPED),
        (Phase.ENDED, State.SUCCEEDED),
    ],
)
def test_a_job_that_a_daemon_has_is_left_to_it(job, phase, state):
    """`run` names it and what can be done; one that is done there is run as ever."""
    entry = Entry(
        id="steps-abc123",
        seq=1,
        uid=os.getuid(),
        name="steps",
        folder=str(job.folder),
        needs=Needs(),
        submitted_s=time.time(),
        queued_s=time.time(),
        phase=phase,
        state=state,
    )
    job.state_dir.mkdir(mode=0o700)
    with closing(Queue.open(job.state_dir)) as queue:
        queue.add([Submitted(entry, "{}", "{}")])
    code, output = job.run()
    if state is State.SUCCEEDED:
        assert (code, job.causes()) == (0, ["completed"]), output
        return
    assert code == 2
    if state is State.STOPPED:
        assert "supervise resume steps-abc123" in output
        code, output = job.run("--fresh")
        assert (code, job.causes()) == (0, ["completed"]), output
        return
    where = "waiting" if phase is Phase.WAITING else "running"
    assert f"steps-abc123 is in the daemon's queue ({where}): supervise attach" in output
    assert job.listed() == []


def test_a_queue_that_cannot_be_read_keeps_nobody_from_running(job):
    """It is said; the job's own lock still keeps two runners apart."""
    job.state_dir.mkdir(mode=0o700)
    (job.state_dir / "queue.sqlite").write_text("no database at all, but long enough" * 100)
    code, output = job.run()
    assert code == 0, output
    assert "queue.sqlite" in output
    assert job.causes() == ["completed"]
