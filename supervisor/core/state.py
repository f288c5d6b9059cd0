"""The whole memory of a job between two events.

Owns the record. All of it but `deadlines`, `phase_until`, `step` and what `cadence` taught is
rebuilt by replaying the journal.
"""

from dataclasses import dataclass, field

from supervisor.core.cadence import Cadence
from supervisor.core.causes import State
from supervisor.core.deadlines import Deadlines, Timeouts
from supervisor.core.decide import Failure
from supervisor.core.evidence import Breach, DeadlineName, Evidence
from supervisor.core.gpu import GpuTrouble


@dataclass(frozen=True, slots=True)
class JobState:
    """Where a job is, and what its next decision needs to know.

    `failures` are those since the last checkpoint progress; `ceiling` is the step that attempts
    must resume below until it is saved anew. `stop_requested`, `fired` (the first deadline that
    ended it), `saved_step` (its newest checkpoint) and `step` (the last that it reported) are of
    the running attempt, and so are `seen` (what it did when that deadline fired), `breach` (the
    limit it went beyond), `troubles` and `phase_until` (the instant before which it is not expected
    to show progress, as it said). `gpus` are those of the running attempt or of the next. `avoid`
    are those on which it failed and which are to be changed for others; `spoilt`, each with the
    reason, those of which nobody has confirmed yet that they are set aside.
    `best_checkpoint` is the newest step that verified, `disk_checkpoint` the newest of the disk.
    After `exited`, exit code and signal are those of the main process, both None if nobody saw
    them.
    """

    timeouts: Timeouts = field(default_factory=Timeouts)
    gpus_wanted: int = 0
    phase: State = State.QUEUED
    attempt: int = 0
    exited: bool = False
    exit_code: int | None = None
    signal: int | None = None
    stop_requested: bool = False
    fired: DeadlineName | None = None
    seen: str = ""
    breach: Breach | None = None
    troubles: tuple[GpuTrouble, ...] = ()
    gpus: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    spoilt: tuple[tuple[str, str], ...] = ()
    deadlines: Deadlines = field(default_factory=Deadlines)
    phase_until: float | None = None
    cadence: Cadence = field(default_factory=Cadence)
    resumed_step: int | None = None
    saved_step: int | None = None
    step: int | None = None
    progressed: bool = False
    best_checkpoint: int | None = None
    disk_checkpoint: int | None = None
    ceiling: int | None = None
    failures: tuple[Failure, ...] = ()
    spent_s: float = 0.0
    why: str = ""

    def failures_before(self, seen: Evidence) -> tuple[Failure, ...]:
        """The failures that count beside the one with this evidence: finished items refund them."""
        return () if seen.items_done else self.failures
