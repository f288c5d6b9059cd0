"""A daemon as a person starts it, in a folder of its own, and jobs submitted to it.

Owns the daemon's process, the folder and their end; speaks to it through its API. Ends only what it
started: the daemon by its pid, jobs through the daemon. Invariant: when a `Served` is left, no
runner of its jobs lives.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from supervisor.client.connection import Connection
from supervisor.client.errors import ClientError
from supervisor.client.sockets import dial

READY_LIMIT_S = 30.0
END_LIMIT_S = 60.0
LOOK_EVERY_S = 0.02
SUPERVISE = str(Path(sys.executable).with_name("supervise"))


class Failed(Exception):
    """The daemon did not do what it should; says what it said."""


class Served:
    """A user's daemon with its state in `folder`; `options` are those of `daemon run`."""

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.state_dir = folder / "state"
        self.said = folder / "said"
        self.process: subprocess.Popen[bytes] | None = None
        self._options = options

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    @property
    def pid(self) -> int:
        """The daemon's process."""
        if self.process is None:
            raise Failed("no daemon was started")
        return self.process.pid

    def start(self) -> float:
        """Start the daemon and wait until it answers; how long that took, in seconds."""
        began = time.monotonic()
        command = [SUPERVISE, "--state-dir", str(self.state_dir), "daemon", "run", *self._options]
        with self.said.open("ab") as said:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        self.until(self.answers, READY_LIMIT_S)
        return time.monotonic() - began

    def kill(self) -> None:
        """SIGKILL the daemon."""
        assert self.process is not None
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        """Cancel what is left, then ask the daemon to end."""
        if self.process is None:
            return
        if self.process.poll() is not None:
            self.start()
        with self.connection() as api:
            for job in api.request("GET", "/v1/jobs")["jobs"]:
                if job["phase"] != "ended":
                    api.request("POST", f"/v1/jobs/{job['id']}/cancel", {}, END_LIMIT_S)
        self.until(lambda: not self.unfinished(), END_LIMIT_S)
        self.process.terminate()
        self.process.wait(END_LIMIT_S)
        self.process = None

    def connection(self) -> Connection:
        """A new connection to the daemon."""
        path = self.state_dir / "daemon.sock"
        return Connection(lambda: dial(path), str(path))

    def answers(self) -> bool:
        """Whether the daemon answers. Raises Failed where it has ended."""
        if self.process is not None and self.process.poll() is not None:
            raise Failed(f"the daemon ended by itself:\n{self.told()}")
        with suppress(ClientError), self.connection() as api:
            api.request("GET", "/v1/daemon")
            return True
        return False

    def submit(self, jobs: Sequence[Mapping[str, Any]], per_request: int = 200) -> list[str]:
        """Submit jobs, given as the content of a job.yaml each; their ids."""
        ids: list[str] = []
        surroundings = {"env": {"PATH": os.environ["PATH"]}, "umask": 0o022, "limits": {}}
        with self.connection() as api:
            for first in range(0, len(jobs), per_request):
                asked = [
                    {"job": dict(job), "folder": str(self.folder)}
                    for job in jobs[first : first + per_request]
                ]
                body = {"jobs": asked, "surroundings": surroundings}
                answer = api.request("POST", "/v1/jobs", body, END_LIMIT_S)
                ids += [one["id"] for one in answer["jobs"]]
        return ids

    def jobs(self) -> dict[str, dict[str, Any]]:
        """Every job of the queue, by its id."""
        with self.connection() as api:
            return {one["id"]: one for one in api.request("GET", "/v1/jobs")["jobs"]}

    def unfinished(self) -> list[str]:
        """The jobs that have not ended."""
        return [one for one, job in self.jobs().items() if job["phase"] != "ended"]

    def until(self, condition: Callable[[], bool], limit_s: float) -> None:
        """Wait for something. Raises Failed when it does not come."""
        give_up_at = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > give_up_at:
                raise Failed(f"waited {limit_s:.0f} s in vain; the daemon said:\n{self.told()}")
            time.sleep(LOOK_EVERY_S)

    def told(self) -> str:
        """The last words of the daemon."""
        return self.said.read_text(errors="replace")[-4000:] if self.said.exists() else ""
