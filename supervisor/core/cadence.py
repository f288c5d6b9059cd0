"""What `heartbeat: auto` learns from a job: how long its worker may be silent.

Owns the arithmetic; reads no clock. Invariant: the timeout only grows with a longer gap, and never
leaves its two bounds; of a job that nobody has watched for long it is the larger one.

The rule is that of NVIDIA's Resiliency Extension (fault tolerance, `safety_factor` 5 and
`num_warmup_iterations` 5): the longest gap seen between two heartbeats, times five. Other than
there, the gaps of the warm-up do count if they are long: a resumed attempt compiles again.
"""

from dataclasses import dataclass, replace

FACTOR = 5.0  # of the longest gap; NVRx
SHORTEST_S = 600.0  # an evaluation or a checkpoint that has not been seen yet fits in
LONGEST_S = 1800.0  # the heartbeat of a job of which nothing is known
WARM_UP_GAPS = 3  # of each attempt: imports, compilation, first batches tell nothing of the rest
ENOUGH_GAPS = 20
ENOUGH_S = SHORTEST_S  # twenty lines in ten seconds say nothing about the next ten minutes


@dataclass(frozen=True, slots=True)
class Cadence:
    """The gaps between a job's signs of progress, over all its attempts.

    `gaps` and `watched_s` leave the warm-up of each attempt out, `longest_s` does not.
    """

    longest_s: float = 0.0
    gaps: int = 0
    watched_s: float = 0.0
    warm_up: int = WARM_UP_GAPS
    last: float | None = None

    @property
    def timeout_s(self) -> float:
        """How long the worker may be silent from its last sign on."""
        if self.gaps < ENOUGH_GAPS or self.watched_s < ENOUGH_S:
            return LONGEST_S
        return min(max(FACTOR * self.longest_s, SHORTEST_S), LONGEST_S)

    def sign(self, now: float) -> "Cadence":
        """The same, one sign of progress later; `now` is an instant of a monotonic clock."""
        if self.last is None:
            return replace(self, last=now)
        gap_s = max(now - self.last, 0.0)
        longer = replace(self, longest_s=max(self.longest_s, gap_s), last=now)
        if self.warm_up:
            return replace(longer, warm_up=self.warm_up - 1)
        return replace(longer, gaps=self.gaps + 1, watched_s=self.watched_s + gap_s)

    def paused(self, now: float) -> "Cadence":
        """The same, after a stretch of which the worker had said that it would be silent."""
        return self if self.last is None else replace(self, last=now)

    def interrupted(self) -> "Cadence":
        """The same, when a new worker begins: what is between two attempts is no gap."""
        return replace(self, warm_up=WARM_UP_GAPS, last=None)
