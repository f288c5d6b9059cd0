"""The sections of job.yaml that steer one supervised command.

Owns field names, defaults, bounds and descriptions; relates no two sections (semantics.py does).
Keys are the aliases, names in Python carry units. Every section is immutable.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, FiniteFloat, Tag

from supervisor.core.cadence import LONGEST_S, SHORTEST_S
from supervisor.core.causes import Cause
from supervisor.spec.kinds import (
    AUTO,
    UNFILLED,
    Duration,
    EnvName,
    Glob,
    Heartbeat,
    PositiveDuration,
    ProgressPattern,
    Regex,
    SignalName,
    StepRegex,
    Template,
    Text,
)
from supervisor.spec.units import write_duration

PRESET_NAMES = Literal["hf", "detectron2", "mmengine", "cornernet", "dcp", "session"]
OnCause = Literal[
    "resume",
    "retry_once",
    "resume_from_older",
    "hold",
    "give_up",
    "retry_other_gpu",
    "shrink_chunk",
    "quarantine_item",
]
_LEAST_AUTO, _MOST_AUTO = write_duration(SHORTEST_S), write_duration(LONGEST_S)
ResumeMode = Literal["append", "replace", "env", "inplace", "shim", "none"]


class Section(BaseModel):
    """A part of a job file: frozen, unknown keys refused; validators are built when first used."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Timeouts(Section):
    """How long things may take."""

    startup_s: PositiveDuration = Field(
        600.0, alias="startup", description="From the start to the first sign of progress."
    )
    heartbeat_s: Heartbeat = Field(
        AUTO,
        alias="heartbeat",
        description="Longest time without a sign of progress; after it the job is hung. auto: "
        f"learned from the job's own cadence, between {_LEAST_AUTO} and {_MOST_AUTO}.",
    )
    stop_s: Duration = Field(
        60.0, alias="stop", description="From the request to stop until the kill."
    )
    total_s: PositiveDuration | None = Field(
        None, alias="total", description="Longest time for the whole job; null: no limit."
    )
    item_s: PositiveDuration | None = Field(
        None,
        alias="item",
        description="Longest time for one item of a batch job (with map.batch, for one call); "
        "null: no limit of its own.",
        examples=["2m"],
    )
    chunk_s: PositiveDuration | None = Field(
        None,
        alias="chunk",
        description="Longest time for one chunk of a batch job; null: no limit of its own.",
        examples=["20m"],
    )


class StepFromJson(Section):
    """The step stands in a JSON file of the checkpoint."""

    file: Text = Field(
        alias="json",
        description="File inside a directory checkpoint, or beside a file checkpoint.",
        examples=["trainer_state.json"],
    )
    key: Text = Field(
        description="Key of the step in it; dots lead into objects.", examples=["global_step"]
    )


class StepFromPointer(Section):
    """The step is the integer in a file."""

    pointer: Text = Field(description="File holding the step.", examples=["latest_step.txt"])


def _step_kind(value: object) -> str:
    if isinstance(value, (dict, Section)):
        has_pointer = "pointer" in (value if isinstance(value, dict) else type(value).model_fields)
        return "<pointer>" if has_pointer else "<json>"
    return "<regex>"


StepRule = Annotated[
    Annotated[StepRegex, Tag("<regex>")]
    | Annotated[StepFromJson, Tag("<json>")]
    | Annotated[StepFromPointer, Tag("<pointer>")],
    Discriminator(_step_kind),
]


class Checkpoint(Section):
    """Where the job's checkpoints are, and what makes one complete."""

    preset: PRESET_NAMES | None = Field(
        None, description="A framework whose conventions fill in what is not given here."
    )
    dir: Text = Field(".", description="Folder of this run's checkpoints, relative to cwd.")
    glob: Glob = Field(
        description="Pattern of the checkpoints' names, relative to dir.",
        examples=["checkpoint-*", "*.pt"],
    )
    step: StepRule | None = Field(
        None,
        description="How to know a checkpoint's step: an expression with one group, applied to its "
        "path relative to dir; or a JSON file; or a pointer file. Default: the last digits of its "
        "name.",
        examples=["step-(\\d+)"],
    )
    require: tuple[Glob, ...] = Field(
        (),
        description="Patterns of files a directory checkpoint must hold to be complete.",
        examples=[["optimizer.pt"]],
    )
    forbid: tuple[Glob, ...] = Field(
        (),
        description="Patterns of files that show a directory checkpoint to be incomplete.",
        examples=[["*.tmp"]],
    )
    pointer: Text | None = Field(
        None,
        description="File, relative to dir, that names the latest checkpoint; rewritten in the "
        "resume mode inplace.",
        examples=["last_checkpoint"],
    )
    keep: Annotated[int, Field(strict=True, ge=1, le=1_000_000), UNFILLED] | None = Field(
        None, description="How many verified checkpoints to keep; null: all."
    )


class Resume(Section):
    """How a restart continues from a checkpoint; {path}, {step} and {dir} are filled in."""

    mode: ResumeMode = Field(
        "none",
        description="append: argv goes behind the command. replace: argv is the command. env: only "
        "env is set. inplace: the script finds its latest checkpoint itself. none: every restart "
        "begins at zero.",
    )
    argv: tuple[Template, ...] = Field(
        (), description="Arguments.", examples=[["--resume", "{path}"]]
    )
    env: Mapping[EnvName, Template] = Field(
        default_factory=dict,
        description="Environment variables set on a resume.",
        examples=[{"RESUME_FROM": "{path}"}],
    )


class Stop(Section):
    """How the job is asked to stop."""

    signals: tuple[SignalName, ...] = Field(
        ("TERM",),
        min_length=1,
        max_length=8,
        description="Sent in this order; KILL follows after timeouts.stop.",
        examples=[["USR1", "TERM"]],
    )


class Progress(Section):
    """How step, total and loss are read from the job's output."""

    parse: Literal["auto", "tqdm", "regex", "jsonl", "csv", "json"] = Field(
        "auto", description="What the output looks like; regex needs pattern."
    )
    pattern: ProgressPattern | None = Field(
        None,
        description="Expression with the named group step, and if wanted total, loss, epoch.",
        examples=["step (?P<step>\\d+)/(?P<total>\\d+) loss (?P<loss>\\S+)"],
    )
    file: Text | None = Field(None, description="File to follow instead of the output.")
    step: Text | None = Field(None, description="Key or column of the step in that file.")


class Done(Section):
    """What says that the job is finished; everything given must hold."""

    step: Annotated[int, Field(strict=True, ge=1), UNFILLED] | None = Field(
        None, description="The job has reached this step.", examples=[30000]
    )
    file: Text | None = Field(
        None, description="This file exists, relative to cwd.", examples=["DONE"]
    )
    regex: Regex | None = Field(
        None, description="The output matches.", examples=["Training finished"]
    )
    exit: Annotated[int, Field(strict=True, ge=0, le=255), UNFILLED] | None = Field(
        None, description="The worker's exit code.", examples=[0]
    )


class Backoff(Section):
    """The wait before the next attempt: initial * factor^n, at most max, spread by jitter."""

    initial_s: Duration = Field(1.0, alias="initial", description="Before the first restart.")
    max_s: Duration = Field(300.0, alias="max", description="Never longer than this.")
    factor: Annotated[FiniteFloat, Field(strict=True, ge=1, le=100), UNFILLED] = Field(
        2.0, description="Growth with each restart in a row."
    )
    jitter: Annotated[FiniteFloat, Field(strict=True, ge=0, le=1), UNFILLED] = Field(
        0.1, description="Part of the wait that is drawn by chance."
    )


class Restart(Section):
    """How often a failed job is tried again."""

    budget: Annotated[int, Field(strict=True, ge=0, le=1_000_000), UNFILLED] = Field(
        5, description="Restarts without checkpoint progress; a later checkpoint refunds it."
    )
    window_s: PositiveDuration | None = Field(
        None, alias="window", description="Count only restarts within this time; null: all."
    )
    backoff: Backoff = Field(
        default_factory=Backoff.model_construct, description="Wait before the next attempt."
    )
    on: Mapping[Cause, OnCause] = Field(
        default_factory=dict,
        description="What to do about a cause, where it should differ from the usual.",
        examples=[{"cuda_oom": "retry_once"}],
    )
