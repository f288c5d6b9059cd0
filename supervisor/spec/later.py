"""The sections of job.yaml that are checked but not acted upon yet (support.py refuses them).

Owns their shape, so that a slip inside one is reported all the same.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from supervisor.spec.kinds import PositiveDuration, Regex, Text
from supervisor.spec.sections import Section

Arguments = Mapping[str, object]


class Train(Section):
    """The built-in trainer."""

    entry: Text = Field(description="Function giving the pieces of a run.", examples=["pkg:build"])
    args: Arguments = Field(default_factory=dict, description="Keyword arguments of it.")


class Rule(Section):
    """A sign in the log that the user knows."""

    match: Regex = Field(description="Expression.", examples=["step (\\d+)"])
    every_s: PositiveDuration | None = Field(
        None, alias="every", description="Expected at least this often."
    )
    action: Literal["fail"] | None = Field(None, description="What a match means.")
