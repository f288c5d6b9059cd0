"""The version before the daemon, as the history of this checkout has it.

Owns getting its code, and having that code accept a job and run it in a process of its own. What
stands here about that version is for ever: it has been released.
"""

import io
import os
import subprocess
import sys
import tarfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from supervisor.host import identity
from supervisor.queue.model import Entry, Needs, Phase
from supervisor.queue.store import Queue, Submitted
from tests.e2e.daemon_host import LIMIT_S, Host

COMMIT = "f16dcaa13821cf6bc78c5cd0f43dea578f28c52d"
FROZEN_FORMAT = 4
ROOT = Path(__file__).parents[2]
PACKAGES = ("supervisor", "workers")

# What `supervise run` of that version did before its runner began.
ACCEPT = """
import sys
from pathlib import Path
from typing import Any
import supervisor
from supervisor.journal import Journal
from supervisor.runner.opening import open_job
from supervisor.spec.load import load_job
assert Path(supervisor.__file__).is_relative_to(sys.argv[1]), supervisor.__file__
spec = load_job(Path(sys.argv[3]))
with open_job(Journal.open(Path(sys.argv[2])), Path(sys.argv[2]), spec) as job:
    print(job.id)
"""


class Unavailable(Exception):
    """Why the earlier version cannot be had, for a person."""


class Earlier:
    """The earlier version, unpacked in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runners: list[subprocess.Popen[bytes]] = []

    @classmethod
    def unpacked(cls, folder: Path) -> "Earlier":
        """Take it from the history. Raises Unavailable."""
        git = ["git", "-c", "safe.directory=*", "archive", COMMIT, *PACKAGES]
        try:
            packed = subprocess.run(git, cwd=ROOT, check=True, capture_output=True).stdout
        except FileNotFoundError as error:
            raise Unavailable("no git, from which the earlier version would come") from error
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip()
            raise Unavailable(f"this clone has no commit {COMMIT[:7]}: {said}") from error
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
        return cls(folder)

    def accept(self, host: Host, file: str) -> str:
        """Have it accept a job file into the journal; the id."""
        command = [sys.executable, "-c", ACCEPT, str(self.folder), str(host.state_dir), file]
        done = subprocess.run(
            command,
            cwd=host.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def run(self, host: Host, job: str) -> int:
        """Start its runner of a job, detached as a daemon would; the process."""
        command = [sys.executable, "-m", "supervisor.runner", "--state-dir", str(host.state_dir)]
        with host.said.open("ab") as said:
            runner = subprocess.Popen(
                [*command, job],
                cwd=host.folder,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        self.runners.append(runner)
        return runner.pid

    def clean_up(self) -> None:
        """End what a failed test left running, and reap all."""
        for runner in self.runners:
            if runner.poll() is None:
                runner.kill()
            runner.wait()

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.folder)}


def queued(host: Host, job: str, **fields: Any) -> Entry:
    """Put a job of the journal into the queue, as its daemon had left it there; by default started.

    `fields` are those of the entry that are to be otherwise.
    """
    now = time.time()
    with closing(Queue.open(host.state_dir)) as queue:
        given: dict[str, Any] = {
            "id": job,
            "seq": queue.next_seq(),
            "uid": os.getuid(),
            "name": job.rpartition("-")[0],
            "folder": str(host.folder),
            "needs": Needs(),
            "submitted_s": now,
            "queued_s": now,
            "stop_s": 5.0,
            "phase": Phase.STARTED,
            "placed_s": now,
            "launches": 1,
            "boot_id": identity.boot_id(),
        }
        entry = Entry(**given | fields)
        queue.add([Submitted(entry, "", "{}")])
        queue.shelved([job])
    return entry
