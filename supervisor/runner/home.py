"""Where a job keeps its things on disk.

Owns the paths under the state folder, nothing else. Nothing here reads or writes a file's content.
"""

import os
from dataclasses import dataclass
from pathlib import Path

REMOVING = ".removing-"  # no job's name begins with a dot


def default_state_dir() -> Path:
    """`$XDG_STATE_HOME/supervise`, by default ~/.local/state/supervise (XDG base directories)."""
    base = os.environ.get("XDG_STATE_HOME")
    root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".local" / "state"
    return root / "supervise"


@dataclass(frozen=True, slots=True)
class AttemptFolder:
    """What one attempt leaves behind."""

    path: Path

    @property
    def log(self) -> Path:
        """Standard output and error of the worker, as it wrote them."""
        return self.path / "output.log"

    def log_of(self, slot: int) -> Path:
        """The same of one of several workers at a time, numbered from 0."""
        return self.path / (f"output-{slot + 1}.log" if slot else "output.log")

    def item(self, number: int) -> "AttemptFolder":
        """What was written down about the worker that hung at this item of a batch job."""
        return AttemptFolder(self.path / "items" / str(number))

    def worker(self, serial: int) -> "AttemptFolder":
        """The same of a worker that hung before its first item."""
        return AttemptFolder(self.path / "workers" / str(serial))

    @property
    def session(self) -> Path:
        """The socket on which the worker's processes report, while it lives."""
        return self.path / "session"

    @property
    def stack(self) -> Path:
        """Stacks of the worker's threads, taken before it was killed for a hang."""
        return self.path / "stack.txt"

    @property
    def hang(self) -> Path:
        """What else was written down about a worker that was killed for a hang."""
        return self.path / "hang"

    @property
    def processes(self) -> Path:
        """The processes of a hung worker: what each waits in, its CPU time, memory and command."""
        return self.hang / "processes.txt"

    @property
    def gpu(self) -> Path:
        """What the GPUs of a hung worker showed."""
        return self.hang / "gpu.txt"

    @property
    def tail(self) -> Path:
        """The last lines of a hung worker's output."""
        return self.hang / "tail.txt"

    @property
    def evidence(self) -> Path:
        """What was known when the end was concluded, as JSON."""
        return self.path / "evidence.json"


@dataclass(frozen=True, slots=True)
class JobFolder:
    """One job's folder in the state folder."""

    path: Path

    @classmethod
    def of(cls, state_dir: Path, job_id: str) -> "JobFolder":
        """The folder of this job, whether it exists or not."""
        return cls(state_dir / "jobs" / job_id)

    @property
    def runner_lock(self) -> Path:
        """Held by the job's runner, and by nothing else, for as long as it lives."""
        return self.path / "runner.lock"

    @property
    def surroundings(self) -> Path:
        """The environment, umask and limits of who submitted it; only a daemon's jobs have it."""
        return self.path / "surroundings.json"

    @property
    def removal(self) -> Path:
        """There, beside the folder, from the moment it was decided to remove the job."""
        return self.path.with_name(f"{REMOVING}{self.path.name}")

    @property
    def worker_lock(self) -> Path:
        """Inherited by every process of the worker tree: free means that all of them are gone."""
        return self.path / "worker.lock"

    @property
    def runner_log(self) -> Path:
        """The runner's own log, JSON lines."""
        return self.path / "runner.log"

    @property
    def items(self) -> Path:
        """The items that a function named, while they are planned."""
        return self.path / "items.jsonl"

    @property
    def zygote_log(self) -> Path:
        """What was printed while the modules of warm workers were imported."""
        return self.path / "zygote.log"

    @property
    def modules(self) -> Path:
        """Where a script finds `workers.session`, whatever its interpreter."""
        return self.path / "modules"

    @property
    def scratch(self) -> Path:
        """For what the worker needs while the job is not done."""
        return self.path / "scratch"

    @property
    def pins(self) -> Path:
        """Copies of the last verified checkpoints."""
        return self.path / "pins"

    def attempt(self, number: int) -> AttemptFolder:
        """The folder of an attempt, whether it exists or not."""
        return AttemptFolder(self.path / "attempts" / str(number))
