"""The line that stands above an attempt's output.

Owns its wording.
"""

from supervisor.journal import AttemptRecord
from supervisor.runner.words import at_step
from supervisor.views.times import clock, lasting


def title(one: AttemptRecord) -> str:
    """`==> attempt 2, 12:03:04, from step 540: hang after 12 s <==`."""
    started = clock(one.chosen_s if one.spawned_s is None else one.spawned_s)
    ended = "" if one.cause is None else f": {one.cause} after {lasting(one.ran_s)}"
    return f"==> attempt {one.number}, {started}, from {at_step(one.resumed_step)}{ended} <=="
