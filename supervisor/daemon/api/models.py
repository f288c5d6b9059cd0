"""What a request may hold.

Owns the shapes of requests. Invariant: what has passed here can be stored, and sent back as JSON:
no half characters, no infinite numbers, nothing nested without end. Whether a job makes sense is
the daemon's to say.
"""

import json
import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
)

from supervisor.queue.model import PRIORITIES

DEPTH = 32
LARGEST = 2**53  # every reader of JSON knows these numbers exactly
JOBS = 1000
PARAMS = 1000
VARIABLES = 10_000
_TEXT = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_OTHER = re.compile(r"[^\[\]{}]+")
_LONG_NUMBER = re.compile(r"\d{19}")
_ONE_KIND = str.maketrans("{}", "[]")
_TOO_DEEP = f"nested more than {DEPTH} levels deep"
_EXAMPLE_JOB: dict[str, Any] = {
    "name": "digits",
    "command": ["python", "train.py"],
    "resources": {"gpus": 1},
}


def _plain(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Refuse what JSON can write and nobody can keep.

    It is written once more and looked at as text: a walk in Python would take ten times as long.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    except UnicodeEncodeError as error:
        raise ValueError("half a character (a lone surrogate) in a text") from error
    except ValueError as error:
        raise ValueError("a number is not finite") from error
    bare = _TEXT.sub("", text)
    if _LONG_NUMBER.search(bare):
        raise ValueError("a number is beyond 10^18")
    brackets = _OTHER.sub("", bare).translate(_ONE_KIND)
    for _ in range(DEPTH):
        brackets = brackets.replace("[]", "")  # takes the innermost level away
    if brackets:
        raise ValueError(_TOO_DEEP)
    return value


def _absolute(folder: str) -> str:
    if not folder.startswith("/") or "\0" in folder:
        raise ValueError("is not an absolute path")
    return folder


Anything = Annotated[dict[str, Any], AfterValidator(_plain)]
JobName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]
Label = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=200)]
Ordinal = Annotated[int, Field(ge=0, lt=LARGEST)]


class Request(BaseModel):
    """A body. Unknown fields are refused, so that a misspelt one is not silently ignored."""

    model_config = ConfigDict(extra="forbid")

    def said(self) -> dict[str, Any]:
        """What was said: all fields but null, as they came."""
        return {name: value for name, value in self if value is not None}


class NewJob(Request):
    """What may be said of every job that is submitted; null says nothing."""

    priority: Annotated[int, Field(ge=PRIORITIES.start, lt=PRIORITIES.stop)] | None = None
    after: Annotated[list[Label], Field(max_length=1000)] | None = Field(
        default=None, description="Ids or names of jobs that must succeed before."
    )
    key: Label | None = Field(
        default=None, description="The same key again gives the same job again, not a second one."
    )
    group: Label | None = None
    hold_after: Annotated[int, Field(ge=1, lt=LARGEST)] | None = Field(
        default=None, description="After so many failures in a row its group starts nothing more."
    )
    fresh: bool = Field(
        default=False, description="Begin anew where an ended job wrote; what is there is kept."
    )


class FrozenJob(NewJob):
    """A job whose job.yaml was read, checked and frozen by the client."""

    spec: Annotated[str, Field(min_length=2)] = Field(description="As `supervise submit` makes it.")


class FileJob(NewJob):
    """A job as it would stand in a job.yaml, to be read and checked by the daemon."""

    job: Anything = Field(description="The content of a job.yaml.", examples=[_EXAMPLE_JOB])
    folder: Annotated[str, AfterValidator(_absolute), Field(max_length=4096)] = Field(
        description="The folder in which that job.yaml would be; absolute.",
        json_schema_extra={"pattern": "^/[^\\x00]*$"},
        examples=["/home/ada/digits"],
    )
    params: (
        Annotated[
            dict[str, str | int | float | bool], Field(max_length=PARAMS), AfterValidator(_plain)
        ]
        | None
    ) = None


def _kind_of(given: Any) -> str:  # noqa: ANN401 - whatever was sent
    return "frozen" if isinstance(given, dict) and "spec" in given else "file"


AnyJob = Annotated[
    Annotated[FrozenJob, Tag("frozen")] | Annotated[FileJob, Tag("file")],
    Discriminator(_kind_of),
]
# As getrlimit(2) has them: -1 is no limit.
Limit = Annotated[int, Field(ge=-1, lt=LARGEST)]
Variable = Annotated[str, StringConstraints(pattern=r"^[^=\x00]+$")]
Resource = Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,32}$")]


class Surroundings(Request):
    """What jobs inherit from the one who submits them."""

    env: dict[Variable, Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]] = Field(
        default_factory=dict,
        max_length=VARIABLES,
        json_schema_extra={"additionalProperties": False},
    )
    env_keep: Annotated[list[Variable], Field(max_length=VARIABLES)] | None = Field(
        default=None,
        description="Variables that are stored though they look like secrets, with every job.",
    )
    umask: Annotated[int, Field(ge=0, le=0o777)] | None = None
    limits: dict[Resource, Annotated[list[Limit], Field(min_length=2, max_length=2)]] = Field(
        default_factory=dict,
        description="Soft and hard, by the name of the resource: `nofile`.",
        json_schema_extra={"additionalProperties": False},
    )


class Submission(Request):
    """Jobs to be accepted: all of them, or none."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "jobs": [{"job": _EXAMPLE_JOB, "folder": "/home/ada/digits", "priority": 5}],
                    "surroundings": {"env": {"PATH": "/usr/bin:/bin"}, "umask": 18},
                }
            ]
        }
    )
    jobs: Annotated[list[AnyJob], Field(min_length=1, max_length=JOBS)]
    surroundings: Surroundings = Field(default_factory=Surroundings)


class Retry(Request):
    """Which items of a batch job to try again; nothing: the job itself."""

    items: (
        Literal["quarantined"]
        | Annotated[list[Label | Ordinal], Field(min_length=1, max_length=100_000)]
        | None
    ) = Field(default=None, examples=["quarantined", ["photos/a.jpg", 7]])
