"""One run of toy.py, disturbed as planned, with the same command again whenever it was ended.

Owns the job file, the plan of the faults, and what the run came to. What happens inside the
training, the faults too, is toy.py's.
"""

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks.exact.faults import Course, Fault
from benchmarks.exact.training import SupervisedTraining

TOY = Path(__file__).with_name("toy.py")
STOPPED = 75
OVERDUE = -1
AGAIN = (STOPPED, -signal.SIGKILL)
MOST_RUNS = 60


@dataclass
class Toll:
    """What a run came to."""

    code: int = STOPPED  # of the last command; OVERDUE: it did not end in time
    runs: int = 0  # times the command was given
    took_s: float = 0.0
    causes: Counter[str] = field(default_factory=Counter)  # of the attempts
    struck: list[str] = field(default_factory=list)  # what each fault said when it struck


class Trial(SupervisedTraining):
    """The toy in a folder that is not there yet, and the faults that will befall it."""

    def __init__(self, folder: Path, course: Course, faults: Sequence[Fault] = ()) -> None:
        super().__init__(folder, [TOY], job_of(course))
        self.faults = list(faults)
        text = json.dumps([asdict(fault) for fault in faults])
        (folder / "faults.json").write_text(text, encoding="ascii")

    def run(self, limit_s: float) -> Toll:
        """Give the command, and again when it was stopped or killed; for so long at most."""
        toll, began_s = Toll(), time.monotonic()
        while toll.code in AGAIN and toll.runs < MOST_RUNS:
            toll.runs += 1
            toll.code = self._once(began_s + limit_s - time.monotonic())
        toll.took_s = time.monotonic() - began_s
        toll.causes = Counter(str(one["cause"]) for one in self.attempts())
        marks = (self.folder / f"struck-{number}" for number in range(len(self.faults)))
        toll.struck = [mark.read_text(encoding="utf-8") for mark in marks if mark.exists()]
        return toll

    def _once(self, limit_s: float) -> int:
        """Give the command and wait for its end: its exit code, -1 when it took too long."""
        runner = self.start()
        # Where toy.py looks for whom to ask for a stop; it takes a second to get there.
        new = self.folder / ".runner.pid"
        new.write_text(str(runner.pid), encoding="ascii")
        new.rename(self.folder / "runner.pid")
        try:
            return runner.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.end()
            return OVERDUE


def job_of(course: Course) -> dict[str, object]:
    """job.yaml of the toy, without its name."""
    best = {"best": "held_out", "mode": "min"}
    return {
        "train": {
            "entry": "toy:build",
            "steps": course.steps,
            "seed": 7,
            "device": "cpu",
            "accumulate": 2,
            "processes": course.processes,
            "loader": {"workers": 2, "prefetch": 2},
            "snapshot": "500ms",
            "save": {"every": None, "steps": course.save_every, "keep": 3, **best},
            "evaluate": 15,
            "schedule": {"kind": "cosine", "warmup": 10},
            "clip": 1.0,
        },
        "env": {"OMP_NUM_THREADS": "1"},
        "timeouts": {"startup": "2m", "heartbeat": "3s", "stop": "20s"},
        "restart": {"budget": 1000, "backoff": {"initial": 0}},
    }
