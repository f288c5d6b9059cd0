"""Nothing outlives its attempt, nothing takes more than it may: `supervise run`, from outside."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

# Leaves processes behind in every way there is, notes their pids, then goes on with the steps.
LITTER = """
import os, signal, subprocess, sys, time
SLEEP = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1e6)"
def note(pid, kind):
    with open("left.txt", "a") as file:
        file.write(f"{pid} {kind}" + chr(10))
def escape(clean):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            note(os.getpid(), "hidden" if clean else "daemon")
            os.closerange(0, 200)
            env = {} if clean else dict(os.environ)
            os.execve(sys.executable, [sys.executable, "-c", SLEEP], env)
        os._exit(0)
    os.wait()
escape(clean=False)
escape(clean=True)
grand = subprocess.Popen([sys.executable, "-c", SLEEP], start_new_session=True)
note(grand.pid, "session")
stopped = subprocess.Popen([sys.executable, "-c", SLEEP])
note(stopped.pid, "stopped")
os.kill(stopped.pid, signal.SIGSTOP)
"""
WITHOUT_CGROUPS = "for one in $(mount -t cgroup,cgroup2 | cut -d' ' -f3); do umount -l $one; done"


@pytest.fixture
def litter(job: Any, shortened: Callable[..., None]) -> Any:
    """The job of ten steps, whose worker leaves four processes behind in each attempt.

    None of them hears SIGTERM: a stop takes its whole grace, and the slack beyond it.
    """
    shortened({"supervisor.runner.worker.STOP_SLACK_S": 0.5})
    job.write(timeouts={"stop": 1})
    steps = job.folder / "steps.py"
    steps.write_text(LITTER + steps.read_text())
    return job


def left(job: Any, *, hidden: bool = True) -> list[int]:
    """What the workers left behind so far, with or without the one that hides best."""
    noted = job.folder / "left.txt"
    lines = noted.read_text().splitlines() if noted.exists() else []
    found = [line.split() for line in lines]
    return [int(pid) for pid, kind in found if hidden or kind != "hidden"]


@pytest.fixture(params=["as it is", "without control groups"])
def host(request: Any, litter: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """This host, and the same one as a container sees it, where nothing is writable."""
    if request.param != "as it is":
        if os.geteuid() != 0 or shutil.which("unshare") is None:
            pytest.skip("hiding the control groups needs root and unshare")
        plain = litter.command()
        script = f'{WITHOUT_CGROUPS}; exec "$@"'
        hidden = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
        monkeypatch.setattr(litter, "command", lambda: [*hidden, *plain])
    return str(request.param)


def test_nothing_outlives_an_attempt(
    host: str, litter: Any, eventually: Any, alive: Callable[[int], bool]
) -> None:
    """Killed from outside: what it left is gone before the next attempt begins."""
    litter.write(command=["python", "steps.py", "--steps", "200"])
    run = litter.start()
    eventually(lambda: litter.saved(2), 20)
    first = left(litter)
    assert len(first) == 4
    os.kill(eventually(litter.worker), signal.SIGKILL)
    eventually(lambda: len(left(litter)) == 8, 20)
    assert [pid for pid in first if alive(pid)] == []
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=30)
    assert [pid for pid in left(litter) if alive(pid)] == []


def test_nothing_outlives_a_killed_runner(
    host: str, litter: Any, eventually: Any, alive: Callable[[int], bool]
) -> None:
    """SIGKILL of the runner: all of it is gone within seconds, although nobody comes after it.

    Without control groups one that hides its environment and its session is found only by a
    runner that lives; it is the one exception.
    """
    litter.write(command=["python", "steps.py", "--steps", "400"])
    run = litter.start()
    eventually(lambda: litter.saved(30), 30)  # by then there is a guard
    noted = left(litter, hidden=host == "as it is")
    worker = eventually(litter.worker)
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=10)
    try:
        eventually(lambda: not [pid for pid in [worker, *noted] if alive(pid)], 15)
    finally:
        for pid in left(litter):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


def test_the_next_runner_ends_what_a_killed_one_left(
    litter: Any, eventually: Any, alive: Callable[[int], bool]
) -> None:
    """Killed before there was a guard: the next attempt does not begin before all of it is gone."""
    litter.write(command=["python", "steps.py", "--steps", "100"])
    run = litter.start()
    eventually(lambda: len(left(litter)) == 4, 20)
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=10)
    first = left(litter)
    again = litter.start()
    eventually(lambda: len(left(litter)) == 8, 30)
    assert [pid for pid in first if alive(pid)] == []
    again.send_signal(signal.SIGINT)
    again.communicate(timeout=30)
    assert [pid for pid in left(litter) if alive(pid)] == []


HUNGRY = "import time; print('step 1', flush=True); b = bytearray(400 << 20); time.sleep(1e6)"


@pytest.mark.parametrize("hidden", [False, True])
def test_beyond_its_memory_limit_it_ends_and_says_so(
    job: Any, monkeypatch: pytest.MonkeyPatch, *, hidden: bool
) -> None:
    """By the kernel where there is a control group, by sampling elsewhere; the cause is one."""
    if hidden:
        if os.geteuid() != 0 or shutil.which("unshare") is None:
            pytest.skip("hiding the control groups needs root and unshare")
        plain = job.command()
        script = f'{WITHOUT_CGROUPS}; exec "$@"'
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
        monkeypatch.setattr(job, "command", lambda: [*command, *plain])
    job.write(
        command=[sys.executable, "-c", HUNGRY],
        checkpoint=None,
        resume=None,
        done=None,
        resources={"memory": "200MiB"},
        restart={"budget": 0},
    )
    code, output = job.run()
    assert code == 1, output
    assert job.causes() == ["host_memory_limit"]
    assert "memory" in job.attempts()[0]["reason"]


def test_a_kill_from_outside_is_no_lack_of_memory(job: Any, eventually: Any) -> None:
    """SIGKILL below the limit: cause signal."""
    job.write(resources={"memory": "400MiB"}, command=["python", "steps.py", "--steps", "400"])
    run = job.start()
    eventually(lambda: job.saved(2), 20)
    os.kill(eventually(job.worker), signal.SIGKILL)
    eventually(lambda: len(job.attempts()) > 1, 30)
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=40)
    assert job.causes()[0] == "signal"


LIMITED = """
import json, os, resource
print(json.dumps({
    "cpus": len(os.sched_getaffinity(0)),
    "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "oom_score_adj": int(open("/proc/self/oom_score_adj").read()),
}))
"""


def test_a_worker_starts_within_its_limits(job: Any) -> None:
    """Cores, open files, core dumps, and the kernel's choice of a victim."""
    job.write(command=["python", "-c", LIMITED], checkpoint=None, resume=None, done=None)
    job.write(resources={"cpus": 1, "open_files": 123})
    assert job.run()[0] == 0
    said = json.loads(job.ask("logs", "steps"))
    assert said == {"cpus": 1, "open_files": 123, "core": [0, 0], "oom_score_adj": 1000}


FORKS = """
import os, threading
made = 0
while made < 300:
    try:
        pid = os.fork()
    except BlockingIOError:
        break
    if pid == 0:
        os.setsid()
        threading.Event().wait()
    made += 1
print("made", made, flush=True)
"""


def test_a_fork_bomb_ends_at_its_limit_and_leaves_nothing(job: Any) -> None:
    """`pids` holds, and every one of the processes is gone with the attempt."""
    if not Path("/sys/fs/cgroup/pids").is_dir() and os.geteuid() != 0:
        pytest.skip("no control group for the number of processes")
    job.write(command=["python", "-c", FORKS], checkpoint=None, resume=None, done=None)
    job.write(resources={"pids": 40}, env={"BOMB": str(job.folder)})
    code, output = job.run()
    if "cannot be kept" in output:
        pytest.skip("no control group for the number of processes on this host")
    assert code == 0, output
    assert int(job.ask("logs", "steps").split()[1]) < 40
    assert [pid for pid in psutil.pids() if bombed(pid) == str(job.folder)] == []


def bombed(pid: int) -> str | None:
    """The mark of the fork bomb's processes."""
    with suppress(psutil.Error):
        return psutil.Process(pid).environ().get("BOMB")
    return None
