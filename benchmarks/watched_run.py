"""`supervise run` with a stopwatch: says on a pipe when each event is in the journal.

The runner, its journal and its own log are the ordinary ones; a listener is told right after the
commit, and that instant is what it reports. `python -m benchmarks.watched_run DIR JOB.YAML PIPE`.
"""

import os
import sys
import time
from pathlib import Path

from supervisor.cli.given import load_checked
from supervisor.core.events import Event
from supervisor.core.state import JobState
from supervisor.journal import Journal
from supervisor.runner.listener import BatchSnapshot, GpuUsage, Snapshot
from supervisor.runner.opening import open_job
from supervisor.runner.run import run


class Stopwatch:
    """A listener that reports the instant at which it was told of a durable event."""

    def __init__(self, pipe: str) -> None:
        self._fd = os.open(pipe, os.O_WRONLY)

    def saw(self, event: Event, _state: JobState) -> None:
        """Report it."""
        now_ns = time.monotonic_ns()
        if event.durable:
            os.write(self._fd, f"{type(event).__name__} 0 {now_ns}\n".encode())

    def progressed(self, snapshot: Snapshot) -> None:
        """Not wanted."""

    def batch_progressed(self, snapshot: BatchSnapshot) -> None:
        """Not wanted."""

    def gpus_used(self, usage: GpuUsage) -> None:
        """Not wanted."""

    def warned(self, text: str) -> None:
        """Let it be seen."""
        print(text, file=sys.stderr)


def main(state_dir: str, job_file: str, pipe: str) -> None:
    """Run the job to its end."""
    spec = load_checked(Path(job_file), ())
    journal = Journal.open(Path(state_dir))
    with open_job(journal, Path(state_dir), spec) as job:
        run(job, Stopwatch(pipe))


if __name__ == "__main__":
    main(*sys.argv[1:])
