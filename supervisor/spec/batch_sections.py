"""The sections of job.yaml that describe a batch job: map, gradcam and chunks.

Owns field names, defaults, bounds and descriptions; relates no two fields (batch_semantics.py
does), and imports nothing that a field names: that is the worker's business.
"""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import Discriminator, Field, FiniteFloat, Tag

from supervisor.spec.batch_kinds import (
    Arguments,
    Entry,
    Growth,
    Items,
    Model,
    PictureSize,
    Reshape,
    Target,
)
from supervisor.spec.kinds import UNFILLED, Device, PositiveDuration, Text
from supervisor.spec.sections import Section

Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000), UNFILLED]
Channel = Annotated[FiniteFloat, Field(strict=True), UNFILLED]
Method = Literal["gradcam", "gradcam++", "eigencam", "layercam", "scorecam"]
Colormap = Literal["turbo", "viridis", "inferno", "jet"]
GROWTH_BYTES: Final = 1024**3  # of a worker's memory, before it is replaced


class Map(Section):
    """A function called for each item, in isolated workers."""

    entry: Entry = Field(
        description="Function of one item; or a class, made once per worker with args and then "
        "called for each item. What it returns must be JSON-able.",
        examples=["pkg:handle"],
    )
    items: Items = Field(
        description="The items: a pattern of files (** for any depth); a file with one item a "
        "line, or JSON lines (.jsonl); or a function that yields them. Relative to cwd.",
        examples=["photos/*.jpg", "items.txt", "pkg:list_items"],
    )
    args: Arguments = Field(
        default_factory=dict,
        description="Keyword arguments of the class, or of each call of the function.",
        examples=[{"threshold": 0.5}],
    )
    batch: Count | None = Field(
        None,
        description="The function takes a list of up to so many items, and returns as many "
        "results. null: one item a call.",
        examples=[8],
    )
    out: Text = Field(
        "out/", description="Folder of results.jsonl and quarantine.jsonl, relative to cwd."
    )


class Preprocess(Section):
    """How an image becomes the model's input: resized, scaled to 0..1, normalized."""

    size: PictureSize = Field(
        (224, 224),
        description="Height and width in pixels; one number for both.",
        examples=[[224, 224]],
    )
    mean: Annotated[tuple[Channel, ...], Field(min_length=1, max_length=4)] = Field(
        (0.485, 0.456, 0.406),
        description="Subtracted from each channel; ImageNet's by default.",
        examples=[[0.485, 0.456, 0.406]],
    )
    std: Annotated[tuple[Channel, ...], Field(min_length=1, max_length=4)] = Field(
        (0.229, 0.224, 0.225),
        description="Each channel is divided by it; ImageNet's by default.",
        examples=[[0.229, 0.224, 0.225]],
    )


def _preprocess_kind(value: object) -> str:
    return "<section>" if isinstance(value, (Mapping, Section)) else "<entry>"


class GradCam(Section):
    """The built-in Grad-CAM over a folder of images."""

    model: Model = Field(
        description="Function that builds the model; or a file of TorchScript (.pt) or "
        "torch.export (.pt2), relative to cwd.",
        examples=["pkg:build", "model.pt2"],
    )
    args: Arguments = Field(
        default_factory=dict,
        description="Keyword arguments of the function that builds the model.",
        examples=[{"classes": 10}],
    )
    weights: Text | None = Field(
        None, description="File of weights that the built model loads.", examples=["best.pt"]
    )
    images: Items = Field(
        description="The images: a pattern of files, a file of lines, or a function, as map.items.",
        examples=["photos/*.jpg"],
    )
    out: Text = Field(
        "heat/",
        description="Folder for overlays, raw maps, results.jsonl and index.html, relative to cwd.",
    )
    layer: Text | None = Field(
        None,
        description="Name of the layer to look at, as in model.named_modules(). null: the last "
        "convolution, which is printed.",
        examples=["layer4.1.conv2"],
    )
    target: Target | None = Field(
        None,
        description="Class to explain: its number, its label, or a function of the scores. null: "
        "the class with the highest score.",
        examples=[243, "tabby", "pkg:choose"],
    )
    labels: Text | None = Field(
        None, description="File with the classes' labels, one a line.", examples=["labels.txt"]
    )
    preprocess: (
        Annotated[
            Annotated[Entry, Tag("<entry>")] | Annotated[Preprocess, Tag("<section>")],
            Discriminator(_preprocess_kind),
        ]
        | None
    ) = Field(
        None,
        description="Function from an image file to the model's input; or size, mean and std. "
        "null: 224 pixels, with ImageNet's mean and std.",
        examples=[{"size": 224, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}, "pkg:prepare"],
    )
    method: Method = Field("gradcam", description="How the heat is computed.")
    reshape: Reshape | None = Field(
        None,
        description="For layers whose output is no picture: vit for tokens of a vision "
        "transformer, or a function from that output to (batch, channels, height, width).",
        examples=["vit"],
    )
    colormap: Colormap = Field("turbo", description="Colours of the overlay.")
    alpha: Annotated[FiniteFloat, Field(strict=True, ge=0, le=1), UNFILLED] = Field(
        0.5, description="Weight of the heat over the image: 0 hides it, 1 hides the image."
    )
    device: Device = Field(
        "auto", description="Where the model runs; auto: on a GPU where the worker sees one."
    )


class Recycle(Section):
    """When a worker is replaced, though nothing is wrong with it; null: never for this reason."""

    items: Count | None = Field(None, description="It has done so many items.", examples=[500])
    age_s: PositiveDuration | None = Field(
        None, alias="age", description="It has lived this long.", examples=["1h"]
    )
    gpu_growth_bytes: Growth | None = Field(
        GROWTH_BYTES,
        alias="gpu_growth",
        description="Its GPU memory has grown by this much since its first items, and stays so.",
    )
    host_growth_bytes: Growth | None = Field(
        GROWTH_BYTES,
        alias="host_growth",
        description="Its memory has grown by this much since its first items, and stays so.",
    )


class Chunks(Section):
    """How the items of a batch job are handed to its workers."""

    size: Count = Field(16, description="Items handed to a worker at once.")
    parallel: Annotated[int, Field(strict=True, ge=1, le=64), UNFILLED] = Field(
        1, description="Workers at once."
    )
    isolation: Literal["recycle", "chunk", "item"] = Field(
        "recycle",
        description="recycle: a worker goes on until `recycle` says otherwise. chunk: each chunk "
        "gets a fresh worker. item: each item does.",
    )
    recycle: Recycle = Field(
        default_factory=Recycle.model_construct,
        description="When a worker is replaced.",
        examples=[{"gpu_growth": "1GiB", "items": 500}],
    )
    poison: Literal["quarantine", "fail"] = Field(
        "quarantine",
        description="What becomes of an item that fails again when it is tried alone. quarantine: "
        "it is set aside, and the others go on. fail: the job fails.",
    )
