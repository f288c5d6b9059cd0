"""`supervise top` shows the jobs of all users that a daemon serves, and never waits for it."""

import os
import pwd
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.cli.top_frame import JobRow, Watcher
from supervisor.cli.top_gpus import NOTHING_YET
from supervisor.cli.top_jobs import Asker, DaemonFeed
from supervisor.gpu.shared_folder import ENVIRONMENT
from supervisor.runner.home import JobFolder
from tests.unit.fake_daemon import FakeDaemon, Request, refused, served

NewJob = Callable[..., Any]
ADA = {"user": "ada", "uid": os.getuid() + 1, "created_at": "2026-03-01T11:00:00.000Z"}
ME = pwd.getpwuid(os.getuid()).pw_name
# A runner whose worker says its pid, and stays until the runner's stdin is closed.
RUNNER = """
import subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=0)
print(worker.pid, flush=True)
worker.wait()
"""


@pytest.fixture(autouse=True)
def _lease_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "leases"))


@pytest.fixture(name="daemon")
def _daemon(state_dir: Path) -> Iterator[FakeDaemon]:
    with served(FakeDaemon(state_dir / "daemon.sock", state_dir)) as one:
        status = {"state_dir": str(state_dir), "system": True, "jobs": {"waiting": 3}}
        one.routes["GET", "/v1/daemon"] = (200, status)
        yield one


@pytest.fixture(name="runner")
def _runner() -> Iterator[tuple[int, int]]:
    """The pids of a runner and its worker."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", RUNNER], **pipes) as process:
        assert process.stdout
        assert process.stdin
        try:
            yield process.pid, int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(10)


def going(daemon: FakeDaemon, job: str, runner: int, worker: int, **more: Any) -> None:
    """Let the daemon have a job of ada's that runs."""
    attempts = [{"number": 2, "pid": worker, "ended_at": None}]
    found = {"runner_pid": runner, "runner_alive": True, "attempt": 2, "attempts": attempts}
    daemon.has(job, **ADA, **found, step=7, total=9, **more)


def jobs(state_dir: Path) -> tuple[JobRow, ...]:
    """What one frame shows."""
    return Watcher(state_dir).frame(NOTHING_YET, Asker(state_dir).ask()).jobs


def test_jobs_of_others_are_shown_with_their_processes(
    daemon: FakeDaemon, state_dir: Path, runner: tuple[int, int], new_job: NewJob
) -> None:
    """One's own come from the journal, theirs from the daemon; older ones first, each once."""
    mine = new_job("mine-0a0a0a", name="mine").runner()
    daemon.has(mine.id, user=ME, uid=os.getuid(), runner_pid=os.getpid())
    going(daemon, "hers-0b0b0b", *runner)
    found = Watcher(state_dir).frame(NOTHING_YET, Asker(state_dir).ask())

    hers, own = found.jobs
    assert (hers.id, hers.user, hers.attempt, hers.step) == ("hers-0b0b0b", "ada", 2, 7)
    assert (hers.processes, hers.restarts, hers.silent_s) == (1, None, None)
    assert (own.id, own.user, own.restarts) == (mine.id, ME, 0)
    assert (found.waiting, found.lost, found.daemon_problem) == (3, 0, "")


def test_a_pid_that_is_not_of_the_runner_is_not_believed(
    daemon: FakeDaemon, state_dir: Path, runner: tuple[int, int]
) -> None:
    """Whatever the daemon says: a process that came later with that pid is a stranger."""
    going(daemon, "hers-0b0b0b", runner[0], os.getppid())
    assert [one.processes for one in jobs(state_dir)] == [0]


def test_jobs_of_others_without_a_runner_are_not_shown(daemon: FakeDaemon, state_dir: Path) -> None:
    """The daemon replaces a runner that died."""
    daemon.has("gone-0b0b0b", **ADA, runner_pid=2**22 - 1, runner_alive=False, attempt=1)
    daemon.has("next-0c0c0c", **ADA, runner_pid=None, runner_alive=None, attempt=None)
    assert jobs(state_dir) == ()


def test_a_worker_is_asked_for_once_an_attempt(
    daemon: FakeDaemon, state_dir: Path, runner: tuple[int, int]
) -> None:
    """A view that is open for days asks for no more than it needs."""
    going(daemon, "hers-0b0b0b", *runner)
    asker = Asker(state_dir)
    first = [asker.ask() for _ in range(3)][-1]
    assert daemon.called().count("GET /v1/jobs/hers-0b0b0b") == 1
    assert first.running[0]["worker_pid"] == runner[1]
    daemon.jobs["hers-0b0b0b"] |= {"attempt": 3, "attempts": [{"number": 3, "pid": None}]}
    assert asker.ask().running[0]["worker_pid"] is None
    daemon.jobs["hers-0b0b0b"] |= {"attempts": [{"number": 3, "pid": 77}]}
    assert asker.ask().running[0]["worker_pid"] == 77


def test_own_jobs_that_wait_for_a_daemon_are_not_lost(state_dir: Path, new_job: NewJob) -> None:
    """Where none runs, what the journal has is counted."""
    story = new_job("next-0a0a0a", name="next")
    folder = JobFolder.of(state_dir, story.id)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.surroundings.write_text("{}")
    new_job("lost-0b0b0b", name="lost").runner(pid=2**22 - 1)
    found = Watcher(state_dir).frame(NOTHING_YET, Asker(state_dir).ask())
    assert (found.jobs, found.waiting, found.lost) == ((), 1, 1)


def test_a_daemon_that_refuses_is_told_of(
    daemon: FakeDaemon, state_dir: Path, new_job: NewJob
) -> None:
    """One's own jobs are shown all the same."""
    new_job("mine-0a0a0a", name="mine").runner()
    daemon.routes["GET", "/v1/jobs"] = refused(503, "stopping", "the daemon is leaving")
    found = Watcher(state_dir).frame(NOTHING_YET, Asker(state_dir).ask())
    assert [one.id for one in found.jobs] == ["mine-0a0a0a"]
    assert "the daemon is leaving" in found.daemon_problem


def test_a_daemon_on_another_host_says_nothing_of_this_one(
    daemon: FakeDaemon, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its processes are not those that are here."""
    daemon.has("hers-0b0b0b", **ADA, runner_pid=os.getpid(), runner_alive=True)
    monkeypatch.setenv("SUPERVISE_URL", "http://127.0.0.1:9")
    assert jobs(state_dir) == ()
    assert daemon.asked == []


def test_the_view_never_waits_for_a_daemon(
    daemon: FakeDaemon, state_dir: Path, eventually: Callable[..., Any]
) -> None:
    """What it said last stays; leaving is at once, also while it does not answer."""
    hangs, asked = threading.Event(), threading.Event()

    def answer(_request: Request) -> Any:
        asked.set()
        hangs.wait(30)
        return 200, {"jobs": []}

    daemon.has("hers-0b0b0b", **ADA, runner_pid=os.getpid(), runner_alive=True)
    with DaemonFeed(Asker(state_dir), every_s=0.01) as feed:
        eventually(lambda: feed.latest.running)
        daemon.routes["GET", "/v1/jobs"] = answer
        assert asked.wait(10)
        shown = Watcher(state_dir).frame(NOTHING_YET, feed.latest)
        assert [one.id for one in shown.jobs] == ["hers-0b0b0b"]
    hangs.set()
