"""The section of job.yaml that describes a training run of the built-in trainer, and its parts.

Owns field names, defaults, bounds and descriptions; relates no two fields (train_semantics.py
does), and imports nothing that a field names: that is the worker's business. The names in Python
are the keys of the plan that the worker reads.
"""

from typing import Annotated, Final, Literal

from pydantic import Field, FiniteFloat

from supervisor.spec.batch_kinds import Arguments
from supervisor.spec.kinds import UNFILLED, Device, Flag, PositiveDuration, Text
from supervisor.spec.sections import Section
from supervisor.spec.train_kinds import Builder, Pin, Precision, SnapshotInterval

MOST_STEPS: Final = 1_000_000_000_000
MOST_PROCESSES: Final = 64  # as many as a job may hold GPUs
_MOST_SEED = 2**63 - 1

Steps = Annotated[int, Field(strict=True, ge=1, le=MOST_STEPS), UNFILLED]
FromStep = Annotated[int, Field(strict=True, ge=0, le=MOST_STEPS), UNFILLED]
Part = Annotated[FiniteFloat, Field(strict=True, ge=0, le=1), UNFILLED]


class Loader(Section):
    """How batches are made."""

    workers: Annotated[int, Field(strict=True, ge=0, le=256), UNFILLED] = Field(
        0, description="Processes that load data, for each process that trains; 0: itself."
    )
    prefetch: Annotated[int, Field(strict=True, ge=1, le=1000), UNFILLED] = Field(
        2, description="Batches that each of them keeps ready."
    )
    pin: Pin = Field(
        "auto", description="Batches in pinned memory; auto: where the model is on a GPU."
    )


class Save(Section):
    """When a checkpoint is written to disk, and how many are kept."""

    every_s: PositiveDuration | None = Field(
        300.0,
        alias="every",
        description="Time between two of them; null: not by time. Default: 5m, or null where "
        "steps is given.",
        examples=["5m"],
    )
    steps: Steps | None = Field(
        None, description="Steps between two of them; null: not by steps.", examples=[1000]
    )
    keep: Annotated[int, Field(strict=True, ge=1, le=1_000_000), UNFILLED] = Field(
        3, description="How many of the newest are kept, besides the best one."
    )
    best: Text | None = Field(
        None,
        description="Metric by which one checkpoint is the best, and is kept; null: none is.",
        examples=["accuracy"],
    )
    mode: Literal["min", "max"] = Field(
        "max", description="Whether the smallest or the largest value of it is the best."
    )


class Schedule(Section):
    """The learning rate over the run, as a part of what the optimizer was made with."""

    kind: Literal["constant", "step", "cosine"] = Field(
        "constant",
        description="step: multiplied by factor every so many steps. cosine: falls to floor at "
        "the end of the run.",
    )
    warmup: FromStep = Field(0, description="Steps in which it rises from nought.")
    every: Steps | None = Field(
        None, description="Steps between two decays, in the kind step.", examples=[1000]
    )
    factor: Annotated[FiniteFloat, Field(strict=True, gt=0, le=1), UNFILLED] = Field(
        0.1, description="What a decay multiplies it by."
    )
    floor: Part = Field(0.0, description="It never decays below this part of its first value.")


class Metrics(Section):
    """What is written down of the run, into `out`."""

    every: Steps = Field(1, description="Steps between two lines of metrics.jsonl.")
    tensorboard: Flag = Field(
        default=False,
        description="Write TensorBoard's event files, too; needs the package tensorboard.",
    )


class Profile(Section):
    """A stretch of steps that torch's profiler records."""

    start: FromStep = Field(10, description="Steps before it begins, in the first attempt.")
    steps: Annotated[int, Field(strict=True, ge=1, le=1000), UNFILLED] = Field(
        5, description="Steps that are recorded."
    )


class Train(Section):
    """The built-in trainer: goes on after any end with the weights it would have had without."""

    entry: Builder = Field(
        description="Function that returns the Pieces of a run: model, loss, optimizer, data.",
        examples=["digits:build"],
    )
    args: Arguments = Field(
        default_factory=dict, description="Its keyword arguments.", examples=[{"width": 32}]
    )
    out: Text = Field(
        "out", description="Folder of checkpoints, metrics and the final model, relative to cwd."
    )
    epochs: Annotated[int, Field(strict=True, ge=1, le=1_000_000), UNFILLED] | None = Field(
        None, description="How often the data is gone through; or give steps.", examples=[30]
    )
    steps: Steps | None = Field(
        None, description="How many steps of the optimizer; or give epochs.", examples=[3000]
    )
    seed: Annotated[int, Field(strict=True, ge=0, le=_MOST_SEED), UNFILLED] = Field(
        0, description="What all chance of the run comes from."
    )
    device: Device = Field(
        "auto", description="Where the model is; auto: on a GPU where the worker sees one."
    )
    precision: Precision = Field(
        "fp32", description="What the model computes in; fp16 scales its gradients."
    )
    accumulate: Annotated[int, Field(strict=True, ge=1, le=1_000_000), UNFILLED] = Field(
        1, description="Batches whose gradients make one step."
    )
    compile: Flag = Field(default=False, description="Compile the model by torch.compile.")
    processes: Annotated[int, Field(strict=True, ge=1, le=MOST_PROCESSES), UNFILLED] = Field(
        1, description="Processes that train together, each with its part of the data."
    )
    deterministic: Flag = Field(
        default=False, description="Only algorithms that give the same bits again; slower."
    )
    loader: Loader = Field(
        default_factory=Loader.model_construct,
        description="How batches are made.",
        examples=[{"workers": 4}],
    )
    snapshot_s: SnapshotInterval | None = Field(
        5.0,
        alias="snapshot",
        description="Time between two snapshots in memory, which outlive the worker and not the "
        "host; null: none.",
        examples=["5s"],
    )
    save: Save = Field(
        default_factory=Save.model_construct,
        description="When a checkpoint is written to disk, and how many are kept.",
        examples=[{"every": "5m", "keep": 3}],
    )
    evaluate: Steps | None = Field(
        None,
        description="Steps between two evaluations; null: at the end of each epoch, and of a run "
        "counted in steps.",
        examples=[500],
    )
    schedule: Schedule = Field(
        default_factory=Schedule.model_construct,
        description="The learning rate over the run.",
        examples=[{"kind": "cosine", "warmup": 100}],
    )
    clip: Annotated[FiniteFloat, Field(strict=True, gt=0), UNFILLED] | None = Field(
        None, description="Largest norm of the gradients; null: no limit.", examples=[1.0]
    )
    non_finite: Annotated[int, Field(strict=True, ge=1, le=1_000_000), UNFILLED] = Field(
        50, description="A loss that is not finite is found within so many steps."
    )
    metrics: Metrics = Field(
        default_factory=Metrics.model_construct,
        description="What is written down of the run.",
        examples=[{"every": 10}],
    )
    profile: Profile | None = Field(
        None,
        description="Record some steps by torch's profiler; null: none.",
        examples=[{"start": 10, "steps": 5}],
    )
