"""A daemon as a person starts it, and the verbs a person would give it."""

import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from supervisor.client.connection import Connection
from supervisor.client.errors import ClientError
from supervisor.client.find import find_daemon
from tests.e2e.conftest import STEPS
from tests.e2e.reader import Reader

SUPERVISE = str(Path(sys.executable).with_name("supervise"))
LIMIT_S = 40.0

# Writes down who runs and when, holds on until it is told to go on, and leaves.
HOLDS = """
import os, pathlib, sys, time
name = sys.argv[1]
with open("ran.txt", "a") as ran:
    ran.write(f"{name} {os.getpid()}\\n")
while not pathlib.Path(f"go-{name}").exists():
    time.sleep(0.02)
sys.exit(int(pathlib.Path(f"go-{name}").read_text() or 0))
"""


class Host:
    """A user's daemon with its state folder, and a folder with job files."""

    def __init__(self, folder: Path, reader: Reader) -> None:
        self.reader = reader
        self.folder = folder / "jobs"
        self.folder.mkdir()
        self.state_dir = folder / "state"
        self.daemon: subprocess.Popen[bytes] | None = None
        self.said = folder / "said"
        (self.folder / "holds.py").write_text(HOLDS)

    def start(self, *options: str) -> None:
        """Start the daemon, and wait until it answers."""
        command = [*self.command(), "daemon", "run", "--launcher", "session", *options]
        with self.said.open("ab") as said:
            self.daemon = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, cwd=self.folder
            )
        self.until(self.answers)

    def answers(self) -> bool:
        """Whether the daemon does; it is no use to wait for one that has ended."""
        assert self.daemon is None or self.daemon.poll() is None, self.told()
        with suppress(ClientError), find_daemon(self.state_dir).connection as api:
            api.request("GET", "/v1/daemon")
            return True
        return False

    def kill(self) -> None:
        """SIGKILL the daemon."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait()

    def leave(self) -> int:
        """Ask the daemon to end; its exit code."""
        assert self.daemon is not None
        self.daemon.terminate()
        return self.daemon.wait(LIMIT_S)

    def command(self) -> list[str]:
        """`supervise` with this state folder."""
        return [SUPERVISE, "--state-dir", str(self.state_dir)]

    def give(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A verb, to its end."""
        done = subprocess.run(
            [*self.command(), *words],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def code(self, *words: str) -> int:
        """The exit code of a verb."""
        return self.give(*words).returncode

    def ok(self, *words: str) -> str:
        """The output of a verb that must not fail."""
        done = self.give(*words)
        assert done.returncode == 0, (words, done.stdout, done.stderr, self.told())
        return done.stdout

    def job(self, name: str, **more: Any) -> str:
        """Write a job file; its name."""
        fields = {"name": name, "command": ["python", "holds.py", name], "timeouts": {"stop": 5}}
        path = f"{name}.yaml"
        (self.folder / path).write_text(json.dumps(fields | more))
        return path

    def submit(self, name: str, *options: str, **more: Any) -> str:
        """Submit a job that holds on; its id."""
        return self.ok("submit", self.job(name, **more), *options).strip()

    def go_on(self, name: str, code: int = 0) -> None:
        """Let a job that holds on end with this exit code."""
        path = self.folder / f"go-{name}"
        path.with_suffix(".new").write_text(str(code))
        path.with_suffix(".new").replace(path)

    def ran(self) -> list[str]:
        """The names of the jobs whose workers began, in order."""
        return [line.split()[0] for line in self._ran()]

    def pids(self) -> list[int]:
        """Their processes."""
        return [int(line.split()[1]) for line in self._ran()]

    def _ran(self) -> list[str]:
        path = self.folder / "ran.txt"
        return path.read_text().splitlines() if path.exists() else []

    def show(self, job: str) -> dict[str, Any]:
        """`supervise show --json`."""
        shown: dict[str, Any] = json.loads(self.read("show", job))
        return shown

    def read(self, *words: str) -> str:
        """What a reading verb says to a program, without the time that its start takes."""
        return self.reader.ask(["--state-dir", str(self.state_dir), *words, "--json"])

    def state(self, job: str) -> str:
        """Where a job is."""
        return str(self.show(job)["state"])

    def until(self, condition: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
        """Wait for something that will come."""
        give_up_at = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < give_up_at, f"waited in vain\n{self.told()}"
            select.select([], [], [], 0.05)

    def until_state(self, job: str, state: str) -> None:
        """Wait until a job is somewhere."""
        self.until(lambda: self.state(job) == state)

    def told(self) -> str:
        """What the daemon said."""
        return self.said.read_text(errors="replace") if self.said.exists() else ""

    def runner(self, job: str) -> int:
        """The process of a job's runner."""
        return int(self.show(job)["runner_pid"])

    def clean_up(self) -> None:
        """Have what is left cancelled by a daemon, then end the daemon."""
        if self.daemon is None:
            return
        if self.daemon.poll() is not None:
            self.start()
        with find_daemon(self.state_dir).connection as api:
            for one in self.unfinished(api):
                api.request("POST", f"/v1/jobs/{one}/cancel")
            self.until(lambda: not self.unfinished(api))
        self.leave()

    def unfinished(self, api: Connection) -> list[str]:
        """The jobs that have not ended."""
        jobs = api.request("GET", "/v1/jobs")["jobs"]
        return [one["id"] for one in jobs if one["phase"] != "ended"]


def lives(pidfd: int) -> bool:
    """Whether a process is there."""
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return False
    return True


def training(host: Host, name: str = "steps", steps: int = 400) -> str:
    """A job file of a training with checkpoints in a folder of its own."""
    (host.folder / "steps.py").write_text(STEPS)
    return host.job(
        name,
        command=["python", "steps.py", "--steps", str(steps)],
        checkpoint={"dir": "out", "glob": "ckpt-*.pt"},
        resume={"argv": ["--resume", "{path}"]},
        restart={"backoff": {"initial": 0}},
        done={"file": "out/DONE"},
    )
