"""Watching a job of the daemon: from the queue, and over the deaths of those who serve it."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.conftest import READER
from tests.e2e.daemon_host import LIMIT_S, Host

# Prints steps for as long as it may, and goes on from nothing.
PRINTS = """
import pathlib, sys, time
step = 0
while not pathlib.Path("enough").exists():
    step += 1
    print(f"step {step}/9999", flush=True)
    time.sleep(0.05)
print("the end", flush=True)
sys.exit(int(pathlib.Path("enough").read_text() or 0))
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A folder for jobs, and a daemon that is not started yet."""
    made = Host(tmp_path, READER)
    (made.folder / "prints.py").write_text(PRINTS)
    yield made
    made.clean_up()


class Watching:
    """A verb that goes on, and what it has said so far."""

    def __init__(self, host: Host, process: subprocess.Popen[bytes], out: Path) -> None:
        self._host = host
        self._out = out
        self.process = process

    @property
    def said(self) -> str:
        """All of it."""
        return self._out.read_text()

    def until(self, words: str, times: int = 1) -> None:
        """Wait until it has said this, so many times."""
        self._host.until(lambda: self.said.count(words) >= times)

    def code(self) -> int:
        """Its exit code, when it ends by itself."""
        return self.process.wait(LIMIT_S)


@contextmanager
def watching(host: Host, *words: str) -> Iterator[Watching]:
    """Give a verb that goes on, with its output in a file."""
    out = host.folder / f"said-{words[0]}"
    with (
        out.open("wb") as file,
        subprocess.Popen([*host.command(), *words], stdout=file, stderr=file) as process,
    ):
        try:
            yield Watching(host, process, out)
        finally:
            process.kill()


def enough(host: Host, code: int = 0) -> None:
    """Let jobs that print end."""
    path = host.folder / "enough"
    path.with_suffix(".new").write_text(str(code))
    path.with_suffix(".new").replace(path)


def test_attach_goes_on_over_runner_and_daemon(host: Host) -> None:
    """From the queue, over the death of both, to the farewell with the job's exit code."""
    host.start()
    first = host.submit("first")
    job = host.submit(
        "prints", command=["python", "prints.py"], after=[first], restart={"budget": 0}
    )
    with watching(host, "attach", job) as attach:
        attach.until(f"prints: waits for {first}, which is running")
        host.go_on("first")
        attach.until("step ")
        os.kill(host.runner(job), signal.SIGKILL)
        attach.until("taking over: the runner of attempt 1 is gone")
        attach.until("attempt 2 is running")
        host.kill()
        os.kill(host.runner(job), signal.SIGKILL)
        attach.until("waits for a daemon; none answers")
        host.start()
        attach.until("attempt 3 is running")
        enough(host, 5)
        attach.until("prints: failed. Why: ")
        assert attach.code() == 1
        assert f"retry {job}" in attach.said.splitlines()[-1]
    assert host.code("attach", job) == 1  # and whoever comes late is told the same


def test_leaving_leaves_the_job(host: Host) -> None:
    """SIGTERM ends the view with 130; the job has the same worker as before."""
    host.start()
    job = host.submit("prints", command=["python", "prints.py"])
    with watching(host, "attach", job) as attach:
        attach.until("step ")
        worker = host.show(job)["attempts"][0]["pid"]
        attach.process.terminate()
        assert attach.code() == 130
        assert f"{job} goes on" in attach.said
    enough(host)
    host.until_state(job, "succeeded")
    assert [one["pid"] for one in host.show(job)["attempts"]] == [worker]


def test_a_stopped_daemon_does_not_end_the_watching(host: Host) -> None:
    """Stopped and started again; `logs -f` has each line of each attempt once."""
    host.start()
    job = host.submit(
        "prints", command=["python", "prints.py"], restart={"backoff": {"initial": 0}}
    )
    with watching(host, "logs", "-f", job) as logs:
        logs.until("step 5/")
        host.leave()
        host.start()
        os.kill(host.runner(job), signal.SIGKILL)
        logs.until("==> attempt 2")
        logs.until("step 5/", times=2)
        enough(host)
        logs.until(f"==> {job} is succeeded")
        assert logs.code() == 0
    said = [line for line in logs.said.splitlines() if not line.startswith("==>")]
    assert said.pop() == "the end"
    steps = [int(line.split()[1].split("/")[0]) for line in said]
    second = steps.index(1, 1)
    assert steps == [*range(1, second + 1), *range(1, len(steps) - second + 1)]
