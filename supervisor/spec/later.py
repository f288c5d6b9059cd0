"""The sections of job.yaml that are checked but not acted upon yet (support.py refuses them).

Owns their shape, so that a slip inside one is reported all the same.
"""

from typing import Literal

from pydantic import Field

from supervisor.spec.kinds import PositiveDuration, Regex
from supervisor.spec.sections import Section


class Rule(Section):
    """A sign in the log that the user knows."""

    match: Regex = Field(description="Expression.", examples=["step (\\d+)"])
    every_s: PositiveDuration | None = Field(
        None, alias="every", description="Expected at least this often."
    )
    action: Literal["fail"] | None = Field(None, description="What a match means.")
