"""Attacks on a run from outside: its runner killed between any two instructions, frozen, robbed."""

import os
import pty
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

# Loaded by the interpreter of the runner under attack, and by no other.
KILL_AT_COMMIT = """
import os, sys
if "KILL_AT" in os.environ and sys.argv and sys.argv[0].endswith("supervise"):
    from supervisor.journal import Journal
    left = [int(os.environ.pop("KILL_AT"))]
    append = Journal.append
    def append_and_die(self, *args, **named):
        append(self, *args, **named)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), 9)
    Journal.append = append_and_die
"""
COMMITS = 14  # of a job that crashes once and then ends well


def test_a_runner_that_dies_after_any_commit_ends_where_an_undisturbed_one_does(job):
    """Promise 5: SIGKILL after the n-th commit, before its effects; the same command again."""
    crash = (
        "\n    if step == 2 and not os.path.exists('struck'):"
        "\n        open('struck', 'w').close(); os.kill(os.getpid(), 9)\n"
    )
    script = job.folder / "steps.py"
    script.write_text(script.read_text().replace('tmp", path)\n', 'tmp", path)' + crash))
    job.write(command=["python", "steps.py", "--steps", "4", "--pause", "0.01"])
    with ThreadPoolExecutor(2) as two:
        ends = list(two.map(lambda number: _killed_at(job, number), range(1, COMMITS + 1)))
    died = [first for first, *_ in ends]
    assert died[0] == died[1] == -signal.SIGKILL
    for number, (_, code, causes, began) in enumerate(ends, start=1):
        assert code == 0, f"killed after commit {number}"
        assert [one for one in causes if one != "runner_lost"] in (
            ["signal", "completed"],
            ["completed"],  # the exit by a signal happened while nobody looked
        ), f"killed after commit {number}"
        assert causes.count("runner_lost") <= 1
        # A worker that was alone (it fails otherwise) and never went back behind its checkpoint.
        assert began == sorted(began)


def _killed_at(job, number):
    folder = job.folder.with_name(f"killed-{number}")
    folder.mkdir()
    for name in ("steps.py", "job.yaml"):
        (folder / name).write_text((job.folder / name).read_text())
    (folder / "sitecustomize.py").write_text(KILL_AT_COMMIT)
    own = type(job)(folder, folder / "state")
    environment = os.environ | {"PYTHONPATH": str(folder), "KILL_AT": str(number)}
    first = subprocess.run(
        [*own.command(), "run", "job.yaml"],
        cwd=folder, env=environment, check=False, capture_output=True, timeout=60,
    )  # fmt: skip
    code, _ = own.run()
    return first.returncode, code, own.causes(), own.began()


def test_of_many_runs_that_start_at_once_one_runs_the_job(job):
    """Promise 2: one worker; the others are refused, or find the job done."""
    job.write(command=["python", "steps.py", "--steps", "5", "--pause", "0.1"])
    runs = [job.start() for _ in range(6)]
    outputs = [run.communicate(timeout=60)[0] for run in runs]
    assert job.began() == [0]
    codes = [run.returncode for run in runs]
    assert set(codes) <= {0, 2}, outputs
    assert 0 in codes
    for code, output in zip(codes, outputs, strict=True):
        assert "Traceback" not in output
        assert code == 0 or "already running" in output


def test_a_frozen_host_is_no_hang(job, eventually):
    """Promise 8: runner and worker stand still for longer than the heartbeat, then go on."""
    job.write(
        command=["python", "steps.py", "--steps", "4", "--pause", "0.7"],
        timeouts={"heartbeat": 1.4, "stop": 5},
        checkpoint=None,
        resume=None,
    )
    run = job.start()
    eventually(lambda: job.saved(2), 20)
    worker = eventually(job.worker)
    for process in (run.pid, worker):
        os.kill(process, signal.SIGSTOP)
    _let_pass(run, 2.5)
    os.kill(run.pid, signal.SIGCONT)
    _let_pass(run, 0.2)
    os.kill(worker, signal.SIGCONT)
    output, _ = run.communicate(timeout=30)
    assert run.returncode == 0, output
    assert job.causes() == ["completed"]


def test_a_worker_whose_output_was_deleted_is_left_alone(job, eventually):
    """Promise 8: `rm output.log` to make room; what it prints from then on still counts."""
    job.write(
        command=["python", "steps.py", "--steps", "12", "--pause", "0.3"],
        timeouts={"heartbeat": 1.2, "stop": 5},
        checkpoint=None,
        resume=None,
    )
    run = job.start()
    eventually(lambda: job.saved(2), 20)
    (log,) = job.state_dir.glob("jobs/*/attempts/1/output.log")
    log.unlink()
    output, _ = run.communicate(timeout=30)
    assert run.returncode == 0, output
    assert job.causes() == ["completed"]


def test_a_pipe_in_the_place_of_the_output_hangs_nobody(job, eventually):
    """The runner neither waits for it nor gives up the job."""
    job.write(command=["python", "steps.py", "--steps", "12", "--pause", "0.1"])
    run = job.start()
    eventually(lambda: job.saved(2), 20)
    (log,) = job.state_dir.glob("jobs/*/attempts/1/output.log")
    log.unlink()
    os.mkfifo(log)
    output, _ = run.communicate(timeout=30)
    assert run.returncode == 0, output


@pytest.mark.parametrize("moment", ["backing off", "training"])
def test_ctrl_c_on_a_terminal_leaves_it_as_it_was(job, moment, monkeypatch):
    """One Ctrl-C, typed: exit 75, the line is gone, the cursor is there, the echo did not wrap."""
    monkeypatch.setenv("TERM", "xterm")
    if moment == "backing off":
        job.write(command=["python", "-c", "print('step 1/9'); exit(1)"], done=None)
        job.write(restart={"backoff": {"initial": 60}})
    else:
        job.write(command=["python", "steps.py", "--steps", "5000", "--pause", "0.05"])
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(job.folder)
        os.execv(job.command()[0], [*job.command(), "run", "job.yaml"])  # noqa: S606 - no shell
    shown, awaited = b"", b"backing off" if moment == "backing off" else b"loss"
    while awaited not in shown:
        shown += os.read(terminal, 4096)
    os.write(terminal, b"\x03")
    with suppress(OSError):  # EIO: the other side has closed it
        while more := os.read(terminal, 4096):
            shown += more
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 75, shown
    assert shown.rfind(b"\x1b[?25h") > shown.rfind(b"\x1b[?25l")
    assert re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]|\r", b"", shown).endswith(
        b"run the same command again\n"
    )
    assert job.show()["state"] == "stopped"


def test_a_program_that_vanishes_is_permanent(job):
    """It was there when the job was checked; a restart would not bring it back."""
    program = job.folder / "once.sh"
    program.write_text('#!/bin/sh\nrm "$0"\necho step 1/9\nexit 1\n')
    program.chmod(0o755)
    job.write(command=["./once.sh"], done=None)
    code, output = job.run()
    assert code == 1, output
    assert job.causes() == ["exit_code", "spawn_failed"]
    assert "once.sh" in output


def test_a_hang_of_what_is_no_python_ends_all_the_same(job):
    """Its stack cannot be read; it is killed, and counted as a hang."""
    job.write(
        command=["sh", "-c", "echo step 1/9; exec sleep 1000"],
        done=None,
        timeouts={"heartbeat": 0.6, "stop": 1},
        restart={"budget": 0},
    )
    code, output = job.run()
    assert code == 1, output
    assert job.causes() == ["hang"]


def test_a_pointer_that_cannot_be_rewritten_holds_the_job(job):
    """A script that finds its own latest would find the wrong one: exit 3, and the reason."""
    job.write(
        checkpoint={"dir": "out", "glob": "ckpt-*.pt", "pointer": "latest"},
        resume={"mode": "inplace"},
        command=["python", "steps.py", "--steps", "3"],
    )
    script = (job.folder / "steps.py").read_text()
    (job.folder / "steps.py").write_text(script + "os.mkdir('out/latest'); os.kill(os.getpid(), 9)")
    job.write(done={"file": "NEVER"})
    code, output = job.run()
    assert code == 3, output
    assert "latest" in output.splitlines()[-1]


def test_a_runner_without_a_terminal_does_the_same(job):
    """The detached form: unknown and wrong words are exit 2, a stopped job is brought home."""
    script = job.folder / "steps.py"
    waits = "while step == 5 and not os.path.exists('go'): pause.wait(0.01)"
    script.write_text(script.read_text().replace("    step += 1", f"    {waits}\n    step += 1"))
    assert _detached(job, "no-such-job").returncode == 2
    assert b"usage" in _detached(job, "x", "y").stderr
    run = job.start()
    for line in run.stdout:
        if "is running" in line:
            break
    (record,) = job.listed()
    busy = _detached(job, record["id"])
    assert (busy.returncode, b"already running" in busy.stderr) == (2, True)
    run.send_signal(signal.SIGTERM)
    assert run.wait(20) == 75
    (job.folder / "go").touch()
    assert _detached(job, record["id"]).returncode == 0
    assert job.causes() == ["stopped", "completed"]
    assert _detached(job, record["id"]).returncode == 0
    (job.state_dir / "journal.sqlite").write_bytes(b"not a database" * 99)
    broken = _detached(job, record["id"])
    assert (broken.returncode, b"Traceback" in broken.stderr) == (3, False)


def _detached(job, *words):
    runner = [sys.executable, "-m", "supervisor.runner", "--state-dir", str(job.state_dir)]
    return subprocess.run([*runner, *words], check=False, capture_output=True, timeout=60)


def _let_pass(run: subprocess.Popen[str], time_s: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        run.wait(time_s)
    assert Path(f"/proc/{run.pid}").exists()
