"""From evidence to the event that ends an attempt: cause first, then decision.

Owns the joint of `classify` and `decide`. The result is journaled whole, so a later version with
other tables replays what was decided, not what it would decide itself.
"""

from dataclasses import dataclass

from supervisor.core.classify import classify
from supervisor.core.decide import Failure, Policy, decide
from supervisor.core.events import AttemptEnded
from supervisor.core.evidence import Evidence
from supervisor.core.state import JobState


@dataclass(frozen=True, slots=True)
class Moment:
    """What the pure side cannot know: wall-clock time, how long it ran, and a draw in [0, 1)."""

    at_s: float
    ran_s: float
    draw: float


def conclude(state: JobState, policy: Policy, seen: Evidence, moment: Moment) -> AttemptEnded:
    """The cause of the attempt's end and what to do about it, as one fact."""
    cause, reason = classify(seen)
    error = seen.root_error
    permanent = bool(error and error.cause is cause and error.permanent) or bool(
        seen.spawn_error and seen.spawn_error.permanent
    )
    failure = Failure(
        cause=cause,
        step=seen.step,
        error_line=seen.error_line,
        at_s=moment.at_s,
        permanent=permanent,
        at_start=seen.at_start,
        leased=bool(seen.gpus),
    )
    decision = decide(policy, state.failures_before(seen), failure, moment.draw)
    return AttemptEnded(
        number=state.attempt,
        cause=cause,
        reason=reason,
        action=decision.action,
        decision_reason=decision.reason,
        delay_s=decision.delay_s,
        counted=decision.counted,
        ran_s=moment.ran_s,
        at_s=moment.at_s,
        evidence=seen,
    )
