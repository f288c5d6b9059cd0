"""Figures of all jobs of a journal together: what there is now, and what was added since.

Owns the counting, by the definitions of `supervisor.views.losses`. Keeps nothing between two calls:
whoever adds up says up to which event it has counted. Invariant: an attempt, a restart and a loss
each belong to exactly one event, so counting in pieces gives what counting at once does.
"""

from collections import Counter
from typing import Any

from supervisor.journal import AttemptRecord, Journal
from supervisor.journal.tally import Milestone, RunningJob, Tally
from supervisor.views.losses import NO_FAULT, losses, until_s, wall_of

EVENTS = 5_000  # so many are looked at in one call
RUNNING = 200  # so many running jobs are told of
UNKNOWN = "unknown"


def totals(journal: Journal, after_seq: int | None, limit: int = EVENTS) -> dict[str, Any]:
    """What the next `limit` events behind `after_seq` add; None counts none.

    `seq` is up to where was counted, `newest` what there is. A journal that never had an event
    `after_seq` is another one than before: `from` then says that it was counted from its beginning.

    Raises:
        JournalError: it cannot be read.
    """
    tally = journal.tally()
    newest = tally.newest()
    after = newest if after_seq is None else after_seq if 0 <= after_seq <= newest else 0
    seq = min(newest, after + max(0, limit))
    counted = _Counted(tally)
    for one in tally.milestones(after, seq):
        counted.add(one)
    return {
        "from": after,
        "seq": seq,
        "newest": newest,
        "attempts": dict(counted.attempts),
        "restarts": counted.restarts,
        "lost_s": dict(counted.lost_s),
        "wall_s": counted.wall_s,
        "states": tally.states(),
        "running": [_running(tally, one) for one in tally.running(RUNNING)],
    }


class _Counted:
    """The sums so far."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._batches: dict[str, bool] = {}
        self._runs: dict[str, list[AttemptRecord]] = {}
        self.attempts: Counter[str] = Counter()
        self.lost_s: dict[str, float] = {}
        self.restarts = 0
        self.wall_s = 0.0

    def add(self, mark: Milestone) -> None:
        """Count what is certain from this event on."""
        runs = self._runs_up_to(mark.job_id, mark.number)
        if not runs or runs[-1].number != mark.number:  # a removed job, or a damaged row
            return
        one = runs[-1]
        before = runs[-2] if len(runs) > 1 else None
        if mark.kind == "AttemptSpawned":
            self.restarts += before is not None and before.cause not in NO_FAULT
        elif mark.kind == "ProgressBegan":
            if one.progress_s == mark.at_s:
                self._lose(runs, before, mark)
        else:
            kept = self._is_batch(mark.job_id)
            self.attempts[one.cause or UNKNOWN] += 1
            self.wall_s += wall_of(before, one, mark.at_s, kept=kept)
            if one.progress_s is None:
                self._lose(runs, before, mark)

    def _lose(
        self, runs: list[AttemptRecord], before: AttemptRecord | None, mark: Milestone
    ) -> None:
        """What the end of the attempt before cost is known once this one got going, or ended."""
        if before is None:
            return
        cost = losses(runs, kept=self._is_batch(mark.job_id))[-2].seconds_lost or 0.0
        cause = before.cause or UNKNOWN
        self.lost_s[cause] = self.lost_s.get(cause, 0.0) + cost

    def _runs_up_to(self, job_id: str, number: int) -> list[AttemptRecord]:
        """An attempt's milestones come one after the other: they are read once."""
        known = self._runs.get(job_id)
        if not known or known[-1].number != number:
            known = self._runs[job_id] = self._tally.runs_up_to(job_id, number)
        return known

    def _is_batch(self, job_id: str) -> bool:
        if job_id not in self._batches:
            self._batches[job_id] = self._tally.is_batch(job_id)
        return self._batches[job_id]


def _running(tally: Tally, job: RunningJob) -> dict[str, Any]:
    """A running job; `wall_s` is what its running attempt adds so far."""
    record, wall_s = job.record, 0.0
    if job.attempt is not None:
        runs = tally.runs_up_to(record.id, job.attempt)
        if runs[-1].ended_s is None:
            before = runs[-2] if len(runs) > 1 else None
            kept = tally.is_batch(record.id)
            wall_s = wall_of(before, runs[-1], until_s(record), kept=kept)
    return {
        "id": record.id,
        "name": record.name,
        "state": record.state,
        "step": record.step,
        "attempt": job.attempt,
        "checkpoint_s": job.checkpoint_s,
        "wall_s": wall_s,
    }
