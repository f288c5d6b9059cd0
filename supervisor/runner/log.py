"""The runner's own log: JSON lines in the job's folder.

Owns the file and its format (structlog). For machines and for the day after; people are served by
the terminal and by `supervise explain`.
"""

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from supervisor.core.events import Event
from supervisor.core.state import JobState
from supervisor.host.lean import structlog
from supervisor.runner.listener import BatchSnapshot, GpuUsage, Snapshot
from supervisor.runner.words import sentence


class RunnerLog:
    """A listener that writes every durable event as one JSON object a line."""

    def __init__(self, path: Path, job_id: str) -> None:
        self._file: TextIO = path.open("a", encoding="utf-8")
        self._log = structlog.wrap_logger(
            structlog.WriteLogger(self._file),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(default=str),
            ],
            job=job_id,
        )

    def saw(self, event: Event, state: JobState) -> None:
        """Write the event, the state after it, and the sentence that people are told."""
        if event.durable:
            self._log.info(
                type(event).__name__,
                state=state.phase,
                text=sentence(event, state),
                fields=asdict(event),
            )

    def progressed(self, snapshot: Snapshot) -> None:
        """Not logged: the worker's own log has it."""

    def batch_progressed(self, snapshot: BatchSnapshot) -> None:
        """Not logged: the ledger has every finished item."""

    def gpus_used(self, usage: GpuUsage) -> None:
        """Not logged: the evidence of the attempt has its memory."""

    def warned(self, text: str) -> None:
        """Write the warning."""
        self._log.warning("Warned", text=text)

    def close(self) -> None:
        """Close the file. On a full disk its last lines are lost; the journal has all of them."""
        with suppress(OSError):
            self._file.close()
