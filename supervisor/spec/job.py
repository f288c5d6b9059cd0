"""The job: everything job.yaml may say, and the frozen JobSpec that the rest of the program reads.

Owns the top level of the schema. A JobSpec is complete: presets, params and derived values are in
it, so whoever reads it needs no other source.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, PrivateAttr, Tag

from supervisor.spec.batch_kinds import Module
from supervisor.spec.batch_sections import Chunks, GradCam, Map
from supervisor.spec.kinds import Argument, EnvName, Flag, Number, Text
from supervisor.spec.later import Rule
from supervisor.spec.places import SourceMap
from supervisor.spec.queue_sections import Failures, Group, Key, Priority, Reference, Values
from supervisor.spec.resources import Resources
from supervisor.spec.sections import (
    Checkpoint,
    Done,
    Progress,
    Restart,
    Resume,
    Section,
    Stop,
    Timeouts,
)
from supervisor.spec.train_sections import Train

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
Sign = Literal["heartbeat", "output", "checkpoint", "gpu", "cpu"]
ParamType = Literal["float", "int", "str", "bool"]
ParamValue = str | int | float | bool


class Param(Section):
    """A value that `-p name=value` may set, used as ${name}."""

    type: ParamType | None = Field(None, description="Default: the type of the default.")
    default: ParamValue | None = Field(
        None, description="Value when none is given; without one, -p is required."
    )
    min: Number | None = Field(None, description="Smallest value allowed.")
    max: Number | None = Field(None, description="Largest value allowed.")
    choices: tuple[ParamValue, ...] | None = Field(
        None, min_length=1, description="Values allowed."
    )
    help: str | None = Field(None, description="One line for people.")


def _shorthand(value: object) -> object:
    """Read `lr: 0.1` as a param with that default and its type."""
    if isinstance(value, (str, int, float)):
        return {"type": type(value).__name__, "default": value}
    return value


Declared = Annotated[
    Param, BeforeValidator(_shorthand, json_schema_input_type=Param | str | int | float | bool)
]


def _warm_kind(value: object) -> str:
    return "<modules>" if isinstance(value, (list, tuple)) else "<flag>"


Warm = Annotated[
    Annotated[Flag, Tag("<flag>")] | Annotated[tuple[Module, ...], Tag("<modules>")],
    Discriminator(_warm_kind),
]


class JobFile(Section):
    """A job for `supervise`: what to run, and what to do when it dies, hangs or has to stop."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)] = Field(
        description="Name of the job: letters, digits, '.', '_' and '-'.", examples=["digits"]
    )
    command: tuple[Argument, ...] | None = Field(
        None,
        min_length=1,
        description="Any program and its arguments, one list entry each.",
        examples=[["python", "train.py", "--epochs", "30"]],
    )
    train: Train | None = Field(
        None,
        description="Run the built-in trainer.",
        examples=[{"entry": "digits:build", "epochs": 30}],
    )
    gradcam: GradCam | None = Field(
        None, description="Run the built-in Grad-CAM: a batch job over images."
    )
    map: Map | None = Field(None, description="Call a function for each item: a batch job.")
    cwd: Text = Field(".", description="Working directory, relative to this file.")
    env: Mapping[EnvName, Argument] = Field(
        default_factory=dict, description="Environment variables.", examples=[{"SEED": "1"}]
    )
    python: Text | None = Field(
        None,
        description="Interpreter of the worker, relative to this file; its folder comes first on "
        "the command's PATH. Default: the one running supervise.",
        examples=[".venv/bin/python"],
    )
    warm: Warm = Field(
        default=False,
        description="Modules imported ahead, so that the next worker starts within milliseconds. "
        "true: those that the job is seen to need. A command must begin with python. Default: "
        "true for a batch job and for a training run in one process, else false.",
        examples=[["torch"]],
    )
    params: Mapping[str, Declared] = Field(
        default_factory=dict,
        description="Values set by -p name=value and used as ${name}.",
        examples=[{"lr": {"type": "float", "default": 0.1, "min": 0}}],
    )
    resources: Resources = Field(
        default_factory=Resources.model_construct,
        description="What the job needs of a host, and what its worker may use at most.",
        examples=[{"gpus": 1, "gpu_memory": "20GiB", "memory": "32GiB", "cpus": 8}],
    )
    timeouts: Timeouts = Field(
        default_factory=Timeouts.model_construct,
        description="How long things may take.",
        examples=[{"startup": "10m", "heartbeat": "auto"}],
    )
    rules: tuple[Rule, ...] = Field((), description="Your own signs in the log.")
    liveness: tuple[Sign, ...] = Field(
        ("heartbeat", "output", "checkpoint", "gpu", "cpu"),
        min_length=1,
        description="Which signs of progress count: steps that the worker reports by "
        "workers.session (heartbeat), lines of output, growth of the checkpoints. gpu and cpu, "
        "work done by the worker's GPUs and processes, are weaker: they stretch "
        "timeouts.heartbeat and never suspend it, as many a hang keeps both busy.",
        examples=[["output", "checkpoint"]],
    )
    checkpoint: Checkpoint | None = Field(
        None,
        description="Where the checkpoints are; without it nothing is resumed.",
        examples=[{"preset": "hf", "dir": "runs"}],
    )
    resume: Resume = Field(
        default_factory=Resume.model_construct,
        description="How a restart continues from a checkpoint.",
        examples=[{"argv": ["--resume", "{path}"]}],
    )
    stop: Stop = Field(
        default_factory=Stop.model_construct,
        description="How the job is asked to stop.",
        examples=[{"signals": ["TERM"]}],
    )
    progress: Progress = Field(
        default_factory=Progress.model_construct,
        description="How progress is read from the output.",
        examples=[{"parse": "tqdm"}],
    )
    done: Done = Field(
        default_factory=lambda: Done.model_construct(exit=0),
        description="What says that the job is finished; default: exit code 0.",
        examples=[{"step": 30000}],
    )
    restart: Restart = Field(
        default_factory=Restart.model_construct,
        description="How often a failed job is tried again.",
        examples=[{"budget": 5}],
    )
    chunks: Chunks | None = Field(
        None,
        description="How the items of a batch job are handed to its workers.",
        examples=[{"size": 16, "parallel": 2}],
    )
    priority: Priority = Field(
        0,
        description="Jobs of a higher priority start first; among equals, who was submitted first.",
        examples=[10],
    )
    after: tuple[Reference, ...] = Field(
        (),
        description="Jobs that must succeed before this one starts: by id; or by name or group, "
        "all that have not ended, else the newest.",
        examples=[["prepare"]],
    )
    key: Key | None = Field(
        None,
        description="Your own name for this submission: submitting the same key again makes no "
        "second job.",
        examples=["nightly-2026-05-17"],
    )
    group: Group | None = Field(
        None, description="Jobs that belong together, see hold_after.", examples=["sweep-1"]
    )
    hold_after: Failures | None = Field(
        None,
        description="After so many failures in a row in its group no job of the group starts until "
        "the group is released. The jobs of an array without a group have that of the job's name. "
        "null: never.",
        examples=[3],
    )
    array: Mapping[str, Values] = Field(
        default_factory=dict,
        description="Values of params; `supervise submit` makes a job for each combination. Each "
        "needs folders of its own: dir: runs/${lr}.",
        examples=[{"model": ["small", "large"]}],
    )
    env_keep: tuple[EnvName, ...] = Field(
        (),
        description="Variables of your environment that `supervise submit` stores with the job "
        "although they look like secrets.",
        examples=[["HF_TOKEN"]],
    )


class JobSpec(JobFile):
    """An accepted job. `folder` and `source` are the only parts that belong to one machine."""

    folder: Path = Field(description="Absolute folder of the job file.")
    source: Path = Field(description="Absolute path of the job file.")
    values: Mapping[str, str] = Field(
        default_factory=dict, description="The text each param stands for."
    )

    _written: SourceMap = PrivateAttr(default_factory=SourceMap)

    @property
    def written(self) -> SourceMap:
        """Where the file wrote each value; empty after thaw."""
        return self._written

    @classmethod
    def accept(cls, job: JobFile, source: SourceMap, values: Mapping[str, str]) -> Self:
        """Make the spec of a validated file; `source.file` is the path it was read from."""
        # The folder is a part of who the job is: by whichever way it is reached, it is the same.
        path = Path(os.path.realpath(Path(source.file).parent)) / Path(source.file).name
        # Every field is validated already, and building a second validator would cost start-up.
        fields = {name: getattr(job, name) for name in JobFile.model_fields}
        spec = cls.model_construct(**fields, folder=path.parent, source=path, values=dict(values))
        spec._written = source  # noqa: SLF001 - the class's own field
        return spec
