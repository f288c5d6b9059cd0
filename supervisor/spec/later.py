"""The sections of job.yaml that are checked but not acted upon yet (support.py refuses them).

Owns their shape, so that a slip inside one is reported all the same.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from supervisor.spec.kinds import UNFILLED, PositiveDuration, Regex, Size, Text
from supervisor.spec.sections import Section

Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000), UNFILLED]
Arguments = Mapping[str, object]


class Train(Section):
    """The built-in trainer."""

    entry: Text = Field(description="Function giving the pieces of a run.", examples=["pkg:build"])
    args: Arguments = Field(default_factory=dict, description="Keyword arguments of it.")


class GradCam(Section):
    """The built-in Grad-CAM over a folder of images."""

    model: Text = Field(description="Function building the model.", examples=["pkg:build"])
    weights: Text | None = Field(None, description="File of weights.")
    images: Text = Field(description="Pattern of the images.", examples=["photos/*.jpg"])
    out: Text = Field("heat/", description="Folder for the heat maps.")
    args: Arguments = Field(default_factory=dict, description="Keyword arguments of the model.")


class Map(Section):
    """A function called for each item, in isolated chunks."""

    entry: Text = Field(description="Function or class.", examples=["pkg:handle"])
    items: Text = Field(
        description="Pattern of files, a file of lines, or a function.", examples=["photos/*.jpg"]
    )
    args: Arguments = Field(default_factory=dict, description="Arguments of the class.")
    batch: Count | None = Field(None, description="Items per call.")
    out: Text = Field("out/", description="Folder of the results.")


class Rule(Section):
    """A sign in the log that the user knows."""

    match: Regex = Field(description="Expression.", examples=["step (\\d+)"])
    every_s: PositiveDuration | None = Field(
        None, alias="every", description="Expected at least this often."
    )
    action: Literal["fail"] | None = Field(None, description="What a match means.")


class Recycle(Section):
    """When a chunk worker is replaced."""

    gpu_growth_bytes: Size | None = Field(None, alias="gpu_growth", description="Sustained growth.")
    items: Count | None = Field(None, description="Items done.")


class Chunks(Section):
    """How a batch job is cut."""

    size: Count = Field(16, description="Items per chunk.")
    parallel: Count = Field(1, description="Chunks at once.")
    recycle: Recycle = Field(default_factory=Recycle.model_construct, description="Replacement.")
    poison: Literal["quarantine", "fail"] = Field(
        "quarantine", description="What to do about an item that kills its worker."
    )
