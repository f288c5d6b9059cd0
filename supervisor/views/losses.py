"""What each fault of a job cost.

Owns the arithmetic of losses. Pure where it counts: `losses` turns attempts into rows and knows no
journal.

Definitions. *Steps lost* of attempt n: the last step seen in it minus the step that attempt n+1
resumed from (the beginning is step 0), never negative. *Seconds lost* of attempt n: from the moment
when the checkpoint that attempt n+1 resumed from was written (attempt n's start if it began from
nothing, its end if nobody knows when the checkpoint was written), but not before attempt n was
spawned nor before the previous loss was over, until attempt n+1's first sign of progress (its start
where none was seen). Work after that checkpoint, detection,
backoff and start-up are in it; the time during which a job was stopped on request is not. Each
second counts once, so the rows add up. Finished items of a batch job are never lost: there, what is
lost is the time between attempts. *Goodput*: the share of wall time that was not lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from supervisor.core.causes import Action, Cause
from supervisor.journal import AttemptRecord, JobRecord
from supervisor.runner.alive import ATTENDED, runner_lives
from supervisor.views.fields import ended_s
from supervisor.views.times import now

_RESTS = frozenset({Action.HOLD, Action.FINISH, Action.GIVE_UP})  # of a batch job, until new items
NO_FAULT = frozenset({Cause.COMPLETED, Cause.STOPPED})


@dataclass(frozen=True, slots=True)
class Row:
    """One attempt and what its end cost. None: not known, or nothing followed it."""

    number: int
    ran_s: float | None
    resumed_step: int | None
    step: int | None
    cause: str | None
    decision: str | None
    steps_lost: int | None
    seconds_lost: float | None


@dataclass(frozen=True, slots=True)
class Totals:
    """All attempts together. `wall_s` leaves out the time when the job was stopped on request.

    `uncertain`: some attempt's steps are not known, so that `steps_lost` is the least it can be.
    """

    attempts: int
    faults: int
    wall_s: float
    steps_lost: int
    seconds_lost: float
    uncertain: bool

    @property
    def goodput(self) -> float | None:
        """Share of the wall time that was not lost, 0 to 1."""
        return None if self.wall_s <= 0 else max(0.0, 1 - self.seconds_lost / self.wall_s)


@dataclass(frozen=True, slots=True)
class _Gap:
    """Attempt n and its successor. `kept`: what n did is done for ever, as items of a batch are."""

    one: AttemptRecord
    after: AttemptRecord
    kept: bool = False

    @property
    def stopped_s(self) -> float:
        """How long the job was stopped on request, or waited for a person, between the two."""
        end = ended_s(self.one)
        rests = self.one.cause == Cause.STOPPED or (self.kept and self.one.decision in _RESTS)
        if not rests or end is None:
            return 0.0
        return max(0.0, self.after.chosen_s - end)

    @property
    def began_s(self) -> float:
        """When what was lost began."""
        started = _started(self.one)
        end = max(started, ended_s(self.one) or self.after.chosen_s)
        if self.kept:
            return end
        if self.after.resumed_step is None:
            return started
        written = self.after.resumed_written_s
        return end if written is None else min(max(started, written), end)

    @property
    def over_s(self) -> float:
        """When the successor had got going."""
        return self.after.progress_s or _started(self.after)

    @property
    def steps(self) -> int | None:
        """Steps done in vain."""
        if self.kept:
            return 0
        if self.one.step is None:
            return None
        return max(0, self.one.step - (self.after.resumed_step or 0))


def losses(attempts: Sequence[AttemptRecord], *, kept: bool = False) -> list[Row]:
    """One row an attempt, in order. See the definitions above; `kept` is of a batch job."""
    rows = []
    counted_until_s = float("-inf")
    for index, one in enumerate(attempts):
        lost: tuple[int | None, float | None] = (None, None)
        if index + 1 < len(attempts):
            gap = _Gap(one, attempts[index + 1], kept)
            began_s = max(gap.began_s, counted_until_s)
            lost = gap.steps, max(0.0, gap.over_s - began_s - gap.stopped_s)
            counted_until_s = max(counted_until_s, gap.over_s)
        rows.append(
            Row(one.number, one.ran_s, one.resumed_step, one.step, one.cause, one.decision, *lost)
        )
    return rows


def totals(attempts: Sequence[AttemptRecord], until_s: float, *, kept: bool = False) -> Totals:
    """All rows together; `until_s` stands for the end of an attempt that is still running."""
    rows = losses(attempts, kept=kept)
    pairs = [_Gap(one, after, kept) for one, after in pairwise(attempts)]
    wall_s = 0.0
    if attempts:
        last = attempts[-1]
        end_s = ended_s(last)
        wall_s = (until_s if end_s is None else end_s) - _started(attempts[0])
    return Totals(
        attempts=len(attempts),
        faults=sum(row.cause is not None and row.cause not in NO_FAULT for row in rows),
        wall_s=max(0.0, wall_s - sum(gap.stopped_s for gap in pairs)),
        steps_lost=sum(row.steps_lost or 0 for row in rows),
        seconds_lost=sum(row.seconds_lost or 0.0 for row in rows),
        uncertain=any(row.steps_lost is None for row in rows[:-1]),
    )


def wall_of(before: AttemptRecord | None, one: AttemptRecord, until: float, *, kept: bool) -> float:
    """What an attempt adds to the wall time of its job: it, and what passed since `before`.

    `until` stands for its end while it runs. All of a job's attempts together make `totals`.
    """
    end = ended_s(one)
    end = until if end is None else end
    if before is None:
        return max(0.0, end - _started(one))
    began = ended_s(before)
    if began is None:
        return max(0.0, end - _started(one))
    return max(0.0, end - began - _Gap(before, one, kept).stopped_s)


def _started(one: AttemptRecord) -> float:
    return one.chosen_s if one.spawned_s is None else one.spawned_s


def until_s(record: JobRecord) -> float:
    """Up to when a running attempt has run; of one whose runner is gone, its last sign."""
    lives = record.state in ATTENDED and runner_lives(record)
    return now() if lives else record.updated_s
