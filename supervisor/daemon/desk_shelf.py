"""A shelf as the desk has it open: its journal, kept open from question to question.

Owns that connection. Invariant: it is of the file that has the journal's name now; one that was
moved away, or that failed, is let go and opened anew for the next question.
"""

import os
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from supervisor.daemon.contracts import NoSuchJob, ShelfUnavailable
from supervisor.journal import JobRecord, Journal, JournalUnavailable
from supervisor.journal.journal import FILE_NAME
from supervisor.runner.home import JobFolder
from supervisor.views.chosen import Chosen


class OpenShelf:
    """One shelf. For the thread that made it: SQLite's connections stay in theirs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._journal: Journal | None = None
        self._writable = False
        self._file: os.stat_result | None = None
        self._generations: dict[tuple[str, str], int] | None = None

    def reading(self) -> Journal | None:
        """The journal as it is, None where no job was accepted yet. Raises JournalError."""
        if not self._is_open():
            self._take(Journal.open_existing(self.path), writable=False)
        return self._journal

    def writing(self) -> Journal:
        """The journal, made where there is none. Raises JournalError."""
        if not (self._is_open() and self._writable):
            self._take(Journal.open(self.path), writable=True)
        if self._journal is None:
            raise JournalUnavailable(f"there is no journal in {self.path}")
        return self._journal

    def record(self, job_id: str) -> JobRecord:
        """What the journal has of a job. Raises NoSuchJob, JournalError."""
        journal = self.reading()
        found = None if journal is None else journal.job(job_id)
        if found is None:
            raise NoSuchJob(f"there is no job {job_id} in {self.path}")
        return found

    def chosen(self, job_id: str) -> Chosen:
        """A job as the views take it. Raises NoSuchJob, JournalError."""
        record = self.record(job_id)
        return Chosen(self.path, self._open_journal(), record)

    def next_generation(self, name: str, folder: str) -> int:
        """Which job of this name and folder the next one is; its id is free. Raises JournalError.

        All jobs are read once; from then on the ids in question alone are looked up, since others
        may take some meanwhile.
        """
        from supervisor.runner.opening import job_id  # noqa: PLC0415 - readers need no schema

        journal = self.reading()
        if journal is None:
            return 1
        if self._generations is None:
            self._generations = _generations(journal.jobs())
        number = self._generations.get((name, folder), 0) + 1
        while journal.job(job_id(name, folder, number)) is not None:
            number += 1
        self._generations[name, folder] = number - 1
        return number

    def folder(self, job_id: str) -> JobFolder:
        """Where a job keeps its things."""
        return JobFolder.of(self.path, job_id)

    def close(self) -> None:
        """Let go of the journal."""
        journal, self._journal, self._file = self._journal, None, None
        self._generations = None
        if journal is not None:
            journal.close()

    def _open_journal(self) -> Journal:
        if self._journal is None:
            raise ShelfUnavailable(f"the journal in {self.path} went away")
        return self._journal

    def _take(self, journal: Journal | None, *, writable: bool) -> None:
        self.close()
        self._journal, self._writable, self._file = journal, writable, self._status()

    def _is_open(self) -> bool:
        now = self._status()
        if self._journal is None or self._file is None or now is None:
            return False
        return os.path.samestat(self._file, now)

    def _status(self) -> os.stat_result | None:
        with suppress(OSError):
            return (self.path / FILE_NAME).stat()
        return None


def _generations(jobs: Iterable[JobRecord]) -> dict[tuple[str, str], int]:
    """The last generation of each name and folder."""
    from supervisor.runner.opening import next_generation  # noqa: PLC0415 - as above

    ids: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for one in jobs:
        ids[one.name, one.folder].append(one.id)
    return {known: next_generation(found, *known) - 1 for known, found in ids.items()}
