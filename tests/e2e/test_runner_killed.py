"""The runner itself is killed, and the same command is given again: promises 1, 2, 3 and 5."""

import json
import os
import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def test_a_runner_killed_at_random_moments_changes_nothing_but_the_time(job):
    """Twelve SIGKILLs at random moments: one worker at a time, each beginning no earlier.

    Of two jobs, side by side.
    """
    job.write(command=["python", "steps.py", "--steps", "150"])
    seeds = (1, 2)
    twins = [job.twin(f"seed-{seed}") for seed in seeds]
    with ThreadPoolExecutor(len(twins)) as side_by_side:
        histories = list(side_by_side.map(_killed_at_random_moments, twins, seeds))
    for began in histories:
        assert began == sorted(began), "a later attempt began before an earlier one"


def _killed_at_random_moments(job, seed):
    draw = random.Random(seed)
    for _ in range(12):
        run = job.start()
        try:
            run.wait(draw.uniform(0.05, draw.choice((0.4, 0.8, 2.5))))
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            run.wait()
    code, output = job.run()
    assert code == 0, output
    # A worker that met another one, or a torn checkpoint, would have left with an exit code.
    assert set(job.causes()) <= {"runner_lost", "completed"}
    assert job.causes()[-1] == "completed"
    assert [one["number"] for one in job.attempts()] == list(range(1, len(job.causes()) + 1))
    return job.began()


def test_what_escaped_a_killed_runner_is_ended_before_the_next_worker(job, eventually, alive):
    """Promise 2: a process that fled into its own session and kept the lock does not live on."""
    escapee = (
        "import os\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        open('escaped.tmp', 'w').write(str(os.getpid()))\n"
        "        os.rename('escaped.tmp', 'escaped')\n"
        "        import threading; threading.Event().wait()\n"
        "    os._exit(0)\n"
    )
    script = job.folder / "steps.py"
    honest = script.read_text()
    script.write_text(escapee + honest)
    job.write(command=["python", "steps.py", "--steps", "100000"])
    run = job.start()
    eventually(lambda: job.saved(3) and (job.folder / "escaped").exists())
    escaped = int((job.folder / "escaped").read_text())
    assert alive(escaped)
    run.send_signal(signal.SIGKILL)
    run.wait()
    # Gone, or a zombie that whoever adopted it has not reaped yet.
    gone = (
        f"import os\nstat = '/proc/{escaped}/stat'\n"
        "if os.path.exists(stat):\n"
        "    assert open(stat).read().rpartition(')')[2].split()[0] == 'Z'\n"
    )
    script.write_text(gone + honest)
    job.write(command=["python", "steps.py", "--steps", "20"])
    code, output = job.run("--continue")
    assert code == 0, output
    assert job.causes() == ["runner_lost", "completed"]


def test_an_exit_that_no_runner_saw_is_told_as_a_lost_runner(job, eventually):
    """Promise 10: nobody saw how the worker ended, so no cause is made up; the job goes on."""
    job.write(command=["python", "steps.py", "--steps", "100000"])
    run = job.start()
    eventually(lambda: job.saved(3))
    worker = eventually(job.worker)
    run.send_signal(signal.SIGSTOP)
    os.kill(worker, signal.SIGKILL)
    run.send_signal(signal.SIGKILL)
    run.wait()
    job.write(command=["python", "steps.py", "--steps", "20"])
    code, output = job.run("--continue")
    assert code == 0, output
    assert job.causes() == ["runner_lost", "completed"]


def test_the_demo_job_survives_kills_of_its_runner(tmp_path):
    """The real training, eight random kills: it succeeds, only from verified checkpoints.

    `make soak` does the same with twenty, and for longer.
    """
    soak = [sys.executable, "-m", "examples.digits.soak", "--kills", "8", "--epochs", "8"]
    folder = tmp_path / "soak"
    result = subprocess.run(
        [*soak, "--folder", str(folder)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "succeeded" in result.stdout
    history = json.loads((folder / "out/result.json").read_text())
    assert history["steps"] == 8 * 45
