"""What happened in a journal as a whole, and what happens now, for whoever counts.

Owns these few reads over all jobs; counts nothing itself and writes nothing. Invariant: each costs
what is new or what runs now, never the length of the journal.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from supervisor.host.sqlite import Store
from supervisor.journal.records import AttemptRecord, JobRecord


@dataclass(frozen=True, slots=True)
class Milestone:
    """An attempt was spawned, made its first progress, or ended; `kind` is the event's."""

    job_id: str
    kind: str
    at_s: float
    number: int


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job that runs now; its record is without spec, `why` and total.

    `checkpoint_s` is when the checkpoint that verified last was written.
    """

    record: JobRecord
    attempt: int | None
    checkpoint_s: float | None


class Tally:
    """All jobs of one journal; made by `Journal.tally`.

    Every method raises JournalUnavailable while the disk refuses, JournalUnusable when the file
    is damaged.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def newest(self) -> int:
        """The highest sequence number that any event ever had."""
        return next((int(seq) for (seq,) in self._store.rows("newest_event", {})), 0)

    def states(self) -> dict[str, int]:
        """How many jobs are in each state that some job is in."""
        return {str(state): int(count) for state, count in self._store.rows("job_states", {})}

    def jobs(self) -> list[JobRecord]:
        """All jobs, oldest first, without their specs: thousands take milliseconds."""
        return [JobRecord(*row) for row in self._store.rows("jobs_without_specs", {})]

    def milestones(self, after: int, upto: int) -> Iterator[Milestone]:
        """Give those among the events behind `after`, up to and with `upto`, in order."""
        for row in self._store.rows("milestones", {"after": after, "upto": upto}):
            if row[-1] is not None:
                yield Milestone(*row)

    def runs_up_to(self, job_id: str, number: int) -> list[AttemptRecord]:
        """An attempt and the two before it, without pid, reasons and evidence."""
        wanted = {"job_id": job_id, "number": number}
        return [AttemptRecord(*row) for row in self._store.rows("runs_up_to", wanted)]

    def is_batch(self, job_id: str) -> bool:
        """Whether the job has a ledger of items."""
        return any(count for (count,) in self._store.rows("is_batch", {"job_id": job_id}))

    def running(self, limit: int) -> list[RunningJob]:
        """The jobs that have a worker now, oldest first, at most so many."""
        found = []
        for row in self._store.rows("running_jobs", {"limit": limit}):
            job_id, name, state, step, updated_s, *runner, attempt, checkpoint_s = row
            record = JobRecord(job_id, name, "", "", 0.0, updated_s, state, "", step, None, *runner)
            found.append(RunningJob(record, attempt, checkpoint_s))
        return found
