"""A training under `supervise run`, in a folder of its own.

Owns the folder, the job file, the command and its end; looks inside through the reading verbs only.
Ends only what it started: when a `SupervisedTraining` is left, its runner and workers have ended.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SUPERVISE = [sys.executable, "-m", "supervisor", "--state-dir", "state"]
NAME = "training"
END_S = 20.0
SAID_BYTES = 6000
TMPFS = Path("/dev/shm")  # noqa: S108 - where the supervisor keeps its memory tiers


class SupervisedTraining:
    """The job of these fields in a folder that is not there yet, with these files beside it."""

    def __init__(self, folder: Path, files: Iterable[Path], fields: Mapping[str, object]) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        for file in files:
            shutil.copy(file, folder)
        text = json.dumps({"name": NAME, **fields}, indent=2)
        (folder / "job.yaml").write_text(text, encoding="utf-8")  # JSON is YAML

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def start(self) -> subprocess.Popen[bytes]:
        """Give the command. Its own session: the kernel shares processors out by session first."""
        with (self.folder / "said").open("ab") as said:
            self.process = subprocess.Popen(
                [*SUPERVISE, "run", "--plain", "job.yaml"],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        return self.process

    def end(self) -> None:
        """Stop the runner if it lives, politely, then for sure."""
        if self.process is None:
            return
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGKILL):
            if self.process.poll() is not None:
                return
            self.process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(END_S)

    def ask(self, *verb: str) -> str:
        """What a reading verb says of the job; nothing where there is none yet."""
        command = [*SUPERVISE, *verb]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        return done.stdout if done.returncode == 0 else ""

    def attempts(self) -> list[dict[str, Any]]:
        """The attempts so far."""
        told = self.ask("show", NAME, "--json")
        attempts: list[dict[str, Any]] = json.loads(told)["attempts"] if told else []
        return attempts

    def events(self) -> list[dict[str, Any]]:
        """The journal, oldest first."""
        return [json.loads(line) for line in self.ask("events", NAME, "--json").splitlines()]

    def explained(self) -> str:
        """Why each attempt ended, and the end of what the command and the last worker said."""
        logs = sorted(self.folder.glob("state/jobs/*/attempts/*/output.log"), key=os.path.getmtime)
        parts = {"explain": self.ask("explain", NAME), "run": _end_of(self.folder / "said")}
        if logs:
            parts["log"] = _end_of(logs[-1])
        return "\n".join(f"--- {name}\n{text}" for name, text in parts.items())

    def left_in_memory(self) -> list[Path]:
        """Memory tiers of this job that are still there."""
        state = str((self.folder / "state").resolve())
        found = []
        for owner in TMPFS.glob("supervise-*/*/owner"):
            with suppress(OSError):
                if state in owner.read_text(encoding="utf-8", errors="replace"):
                    found.append(owner.parent)
        return found


def _end_of(file: Path) -> str:
    return file.read_bytes()[-SAID_BYTES:].decode(errors="replace") if file.exists() else ""
