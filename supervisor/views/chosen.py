"""The job that a question is about.

Owns the bundle of a job with the journal and the folder that it stands in; reads nothing itself.
"""

from dataclasses import dataclass
from pathlib import Path

from supervisor.journal import JobRecord, Journal
from supervisor.runner.home import JobFolder


@dataclass(frozen=True, slots=True)
class Chosen:
    """A job, its journal, open, and its state folder.

    `here` is the folder in which the reader will type commands; paths below it are told relative to
    it. None, where that is not known, means that they are told whole.
    """

    state_dir: Path
    journal: Journal
    record: JobRecord
    here: Path | None = None

    @property
    def folder(self) -> JobFolder:
        """Where the job keeps its logs and copies."""
        return JobFolder.of(self.state_dir, self.record.id)

    @property
    def submitted(self) -> bool:
        """Whether the job was given to a daemon, which starts its runners."""
        return self.folder.surroundings.exists()
