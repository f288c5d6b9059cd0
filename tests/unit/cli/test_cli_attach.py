"""Attaching to a job: what it waits for, the view of `run`, how it ended, and leaving."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from supervisor.core.causes import Action, Cause
from supervisor.core.events import BackoffElapsed, GpusAwaited, JobCancelled, RunnerStarted
from supervisor.host import identity
from supervisor.runner.home import JobFolder
from supervisor.spec.frozen import freeze
from supervisor.spec.load import load_job
from tests.unit.cli.batch_story import name
from tests.unit.fake_daemon import FakeDaemon, served
from workers.protocol import canonical

Supervise = Callable[..., Result]
NewJob = Callable[..., Any]
ATTACH = [sys.executable, "-c", "from supervisor.cli.main import main; main()"]
COMMAND = "command: [python, train.py]"
MAP = 'map: {entry: "pkg:f", items: "photos/*.jpg"}'
LIMIT_S = 30.0


@pytest.fixture
def told(new_job: NewJob, tmp_path: Path) -> Callable[..., Any]:
    """A job whose frozen spec is a real one."""

    def tell(text: str = COMMAND, *, submitted: bool = False) -> Any:
        folder = tmp_path / "work"
        folder.mkdir(exist_ok=True)
        (folder / "job.yaml").write_text(f"name: digits\n{text}\n")
        story = new_job(spec=freeze(load_job(folder / "job.yaml")), folder=folder)
        if submitted:
            surroundings = JobFolder.of(story.state_dir, story.id).surroundings
            surroundings.parent.mkdir(parents=True, exist_ok=True)
            surroundings.write_text("{}")
        return story

    return tell


class Runner:
    """A process that stands for a job's runner."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["sleep", "60"])

    def takes(self, story: Any) -> Any:
        """It takes a job over."""
        pid = self.process.pid
        ticks = identity.start_ticks(pid) or 0
        return story.saw(RunnerStarted(pid, ticks, identity.boot_id()))

    def leaves(self) -> None:
        """It is gone."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def runner() -> Iterator[Runner]:
    """A runner that lives until it is told to leave."""
    made = Runner()
    yield made
    made.leaves()


@contextmanager
def attached(story: Any, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A real `supervise attach` into a pipe."""
    argv = [*ATTACH, "--state-dir", str(story.state_dir), "attach", story.id, *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, text=True, stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


def until(process: subprocess.Popen[str], words: str) -> str:
    """The next line that has these words; whoever waits in vain is ended by the test's limit."""
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return line
    raise AssertionError(f"{words} never came; {process.stderr and process.stderr.read()}")


def ends(story: Any, cause: Cause, action: Action, reason: str, **given: Any) -> Any:
    """The attempt is over, and with it the job."""
    story.exits(code=0 if cause is Cause.COMPLETED else 1)
    return story.ends(cause, reason, action=action, words="x", **given)


ENDS = {
    0: (Cause.COMPLETED, Action.FINISH, "digits: done"),
    1: (Cause.EXIT_CODE, Action.GIVE_UP, "digits: failed. Why: "),
    3: (Cause.EXIT_CODE, Action.HOLD, "digits: holding, a person is needed: exit_code: why"),
}
AGAIN = {False: {1: "run ", 3: "run "}, True: {1: "retry digits-", 3: "resume digits-"}}


@pytest.mark.parametrize("code", ENDS)
@pytest.mark.parametrize("submitted", [False, True])
def test_an_ended_job_is_told_and_its_code_is_ours(
    told: Callable[..., Any], supervise: Supervise, *, code: int, submitted: bool
) -> None:
    """No view; what to type depends on whose runner it has."""
    story = told(submitted=submitted).runner(1).begins(31)
    cause, action, words = ENDS[code]
    ends(story, cause, action, "why")
    result = supervise("attach", "digits")

    assert result.exit_code == code
    assert result.stdout.startswith(words)
    typed = f"type supervise --state-dir {story.state_dir} " + AGAIN[submitted].get(code, "")
    assert (typed in result.stdout) == (code != 0)


def test_a_cancelled_job(told: Callable[..., Any], supervise: Supervise) -> None:
    """Nothing brings it on, so nothing is to be typed."""
    told().saw(JobCancelled("supervise cancel"))
    result = supervise("attach", "digits")

    assert (result.exit_code, result.stdout) == (1, "digits: cancelled\n")


def test_a_job_without_a_runner_says_what_to_do(
    told: Callable[..., Any], supervise: Supervise
) -> None:
    """A job of `run` that was killed: the command that brings it on; code 3, a person is needed."""
    told().runner(1).begins(31)
    result = supervise("attach", "digits")

    assert result.exit_code == 3
    assert "digits-3fa2c1 is running, and its runner is gone: nobody brings it on" in result.stderr
    assert re.search(r"Go on with it: supervise .*run .*work/job\.yaml", result.stderr)


def test_it_follows_a_running_job_to_its_end(told: Callable[..., Any], runner: Runner) -> None:
    """What happened before in one line; then events, progress from the log, and the farewell."""
    story = runner.takes(told()).begins(31)
    with attached(story) as process:
        assert "==> attempt 1, " in until(process, "")
        story.attempt(1).log.write_bytes(b"step 240/2700 loss 0.4\n")
        until(process, "step 240/2700, loss 0.4")
        story.progressed().verified(250)
        until(process, "checkpoint step 250 verified")
        ends(story, Cause.COMPLETED, Action.FINISH, "exit code 0")
        until(process, "the job succeeded")
        runner.leaves()
        assert until(process, "digits: done") == "digits: done\n"
        assert process.wait(LIMIT_S) == 0


def test_what_lasts_is_told_and_nothing_else_twice(
    told: Callable[..., Any], runner: Runner
) -> None:
    """A job that waits for GPUs says so to who comes later; old events are not told as new."""
    story = runner.takes(told()).begins(31).verified(90)
    story.exits(code=1).ends(Cause.EXIT_CODE, "x", exit_code=1)
    story.saw(BackoffElapsed(), GpusAwaited("2 of 2 are taken"))
    with attached(story) as process:
        first = [until(process, ""), until(process, "")]

    assert "==> attempt 1" in first[0]
    assert "waiting for GPUs: 2 of 2 are taken" in first[1]


def test_a_runner_that_died_is_followed_by_its_successor(
    told: Callable[..., Any], runner: Runner
) -> None:
    """Of a daemon's job: without a daemon that is told; another runner, and it goes on."""
    story = runner.takes(told(submitted=True)).begins(31)
    with attached(story) as process:
        until(process, "==> attempt 1")
        runner.leaves()
        until(process, "warning: waits for a daemon; none answers. To start one: supervise")
        successor = Runner()
        try:
            successor.takes(story)
            until(process, "taking over: the runner of attempt 1 is gone")
            ends(story, Cause.COMPLETED, Action.FINISH, "exit code 0")
        finally:
            successor.leaves()
        until(process, "digits: done")
        assert process.wait(LIMIT_S) == 0


def test_a_waiting_job_tells_what_for(told: Callable[..., Any], runner: Runner) -> None:
    """In the daemon's words, once; the daemon is asked every few seconds and no more often."""
    story = told(submitted=True)
    with served(FakeDaemon(story.state_dir / "daemon.sock", story.state_dir)) as daemon:
        daemon.has(story.id, phase="waiting", waits="waits for 2 GPUs: none is free")
        with attached(story) as process:
            began_at = time.monotonic()
            assert until(process, "2 GPUs").endswith("digits: waits for 2 GPUs: none is free\n")
            runner.takes(story).begins(31)
            until(process, "==> attempt 1")
            asked, took_s = len(daemon.asked), time.monotonic() - began_at
        assert 1 <= asked <= 1 + took_s / 3


def test_a_job_that_ends_in_the_queue(told: Callable[..., Any]) -> None:
    """Held, because its runners die at once: the queue knows, and the journal does not."""
    story = told(submitted=True).runner(1).begins(31)
    with served(FakeDaemon(story.state_dir / "daemon.sock", story.state_dir)) as daemon:
        why = "5 runners in a row ended within a minute"
        daemon.has(story.id, phase="ended", state="holding", why=why)
        with attached(story) as process:
            until(process, f"digits: holding, a person is needed: {why}. Then type supervise")
            assert process.wait(LIMIT_S) == 3


def test_a_batch_job(told: Callable[..., Any], runner: Runner) -> None:
    """Its items are counted, and its farewell has them."""
    story = runner.takes(told(MAP))
    ledger = story.journal.ledger(story.id)
    for _ in ledger.plan(canonical(name(one)) for one in range(1, 11)):
        pass
    story.begins(31)
    with attached(story) as process:
        until(process, "0/10 items done")
        ledger.settle(range(1, 11), 100)
        until(process, "10/10 items done")
        ends(story, Cause.COMPLETED, Action.FINISH, "done", items_done=10)
        runner.leaves()
        until(process, "digits: 10 of 10 items done")
        assert process.wait(LIMIT_S) == 0


def test_a_job_that_is_removed_meanwhile(told: Callable[..., Any], runner: Runner) -> None:
    """Is told, and is no success."""
    story = runner.takes(told()).begins(31)
    with attached(story) as process:
        until(process, "==> attempt 1")
        story.journal.remove_job(story.id)
        assert process.wait(LIMIT_S) == 1
        assert process.stderr is not None
        assert "digits-3fa2c1 was removed" in process.stderr.read()


def test_another_users_job_is_not_watched(supervise: Supervise, state_dir: Path) -> None:
    """Their journal is theirs: what can be looked at instead is named."""
    with served(FakeDaemon(state_dir / "daemon.sock", state_dir)) as daemon:
        at = "2026-03-01T12:00:00.000Z"
        row = {"folder": "/x", "created_at": at, "updated_at": at, "why": "", "user": "ada"}
        nothing = {"step": None, "total": None, "runner_pid": None}
        daemon.has("theirs-abcdef", **row, **nothing)
        result = supervise("attach", "theirs-abcdef")

    assert result.exit_code == 2
    assert "is a job of ada" in result.stderr
    assert "supervise show theirs-abcdef" in result.stderr


class Terminal:
    """A `supervise attach` on a terminal of its own."""

    def __init__(self, story: Any) -> None:
        self.ours, theirs = pty.openpty()
        self.before = termios.tcgetattr(self.ours)
        self.seen = b""
        argv = [*ATTACH, "--state-dir", str(story.state_dir), "attach", story.id]
        env = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
        self.process = subprocess.Popen(
            argv, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=env
        )
        os.close(theirs)

    def until(self, words: bytes) -> None:
        """Read until these words have come."""
        give_up_at = time.monotonic() + LIMIT_S
        while words not in self.seen:
            left_s = give_up_at - time.monotonic()
            assert select.select([self.ours], [], [], max(left_s, 0))[0], self.seen
            self.seen += os.read(self.ours, 65536)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("waiting", [True, False])
def test_leaving_restores_the_terminal(
    told: Callable[..., Any], runner: Runner, *, number: int, waiting: bool
) -> None:
    """The job goes on, the cursor is there, the modes are those of before; code 130."""
    story = told(submitted=waiting)
    if not waiting:
        runner.takes(story).begins(31)
    terminal = Terminal(story)
    try:
        terminal.until(b"waiting since" if waiting else b"attempt 1\x1b")
        terminal.process.send_signal(number)
        terminal.until(b"left the view; digits-3fa2c1 goes on. To stop it: supervise")
        assert terminal.process.wait(LIMIT_S) == 130
        assert termios.tcgetattr(terminal.ours) == terminal.before
        assert terminal.seen.rfind(b"\x1b[?25h") >= terminal.seen.rfind(b"\x1b[?25l")
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.ours)
    assert runner.process.poll() is None
