"""In the machine: cgroups that a test gives to what it starts.

Owns entering one, and a folder for one test. What was started there is ended with it.
"""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOP = Path("/sys/fs/cgroup")
SUPERVISE = str(Path(sys.executable).with_name("supervise"))
ASK = (
    "import json; from supervisor.host.cgroup import survey; o = survey();"
    " print(json.dumps({'levers': [p and str(p) for p in (o.kill, o.memory, o.pids)],"
    " 'reasons': o.reasons}))"
)
DELEGATED = ("--scope", "--quiet", "--collect", "-p", "Delegate=yes")

As = Callable[..., subprocess.CompletedProcess[str]]
"""Runs a command as somebody else, in `cwd`."""


def told(done: subprocess.CompletedProcess[str]) -> Any:
    """Return what a command said in JSON."""
    assert done.stderr == ""
    return json.loads(done.stdout)


def standing(pid: int) -> Path:
    """Return the cgroup that a process is in."""
    return TOP / Path(f"/proc/{pid}/cgroup").read_text().strip().removeprefix("0::/")


def enter(folder: Path, command: list[str], **settings: Any) -> subprocess.Popen[str]:
    """Start a command in a cgroup."""
    into = ["/bin/sh", "-c", f'echo 0 > {folder}/cgroup.procs && exec "$@"', "sh"]
    return subprocess.Popen([*into, *command], text=True, **settings)


@dataclass
class Given:
    """A cgroup of this user's own, as if it had been delegated for one command."""

    folder: Path

    @classmethod
    def make(cls) -> "Given":
        """Make one beside the one that the tests are in."""
        tests = standing(os.getpid())
        if tests.name.startswith("supervise-runner-"):
            tests = tests.parent
        folder = tests.parent / f"job-{secrets.token_hex(4)}"
        folder.mkdir()
        return cls(folder)

    def survey(self) -> dict[str, Any]:
        """Return what a process that is started in it may use."""
        asked = enter(self.folder, [sys.executable, "-c", ASK], stdout=subprocess.PIPE)
        told, _ = asked.communicate(timeout=60)
        found: dict[str, Any] = json.loads(told)
        return found

    def supervise(self, folder: Path, spec: dict[str, Any]) -> subprocess.Popen[str]:
        """Start `supervise run` in it."""
        (folder / "job.yaml").write_text(json.dumps(spec))
        command = [SUPERVISE, "--state-dir", str(folder / "state"), "run", "job.yaml"]
        pipe, same = subprocess.PIPE, subprocess.STDOUT
        return enter(self.folder, command, cwd=folder, stdout=pipe, stderr=same)

    def clear(self) -> bool:
        """End whoever is in it, and return whether it is gone."""
        if self.folder.exists():
            (self.folder / "cgroup.kill").write_text("1")
            for folder in (*self.folder.glob("*/"), self.folder):
                try:
                    folder.rmdir()
                except OSError:
                    return False
        return True
