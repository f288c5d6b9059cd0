"""What a request may hold.

Owns the shapes of requests. Invariant: what has passed here can be stored, and sent back as JSON:
no half characters, no infinite numbers, nothing nested without end. What is wrong is told of the
first few places alone, so that no body makes thousands of mistakes to be told. Whether a job makes
sense is the daemon's to say.
"""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    TypeAdapter,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticKnownError

from supervisor.queue.model import PRIORITIES

DEPTH = 32
LARGEST = 2**53  # every reader of JSON knows these numbers exactly
LARGEST_FILE = 1 << 20  # as supervisor.spec.load has it
JOBS = 1000
PARAMS = 1000
VARIABLES = 10_000
RESOURCES = 64  # getrlimit(2) knows a quarter of them
FEW = 50  # among so many jobs every mistake is told, among more that of the first wrong one
AT_ONCE = 4  # so many entries of a mapping are looked at before the next ones are
NAMED = 5
_TEXT = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"')
_OTHER = re.compile(r"[^\[\]{}]+")
_LONG_NUMBER = "0" * 19
_ONE_DIGIT = str.maketrans("123456789", "000000000")
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
        size = len(text.encode())
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    except UnicodeEncodeError as error:
        raise ValueError("half a character (a lone surrogate) in a text") from error
    except ValueError as error:
        raise ValueError("a number is not finite") from error
    if size > LARGEST_FILE:
        raise ValueError("larger than 1 MiB, which no job file is")
    bare = _TEXT.sub("", text)
    if _LONG_NUMBER in bare.translate(_ONE_DIGIT):
        raise ValueError("a number is beyond 10^18")
    brackets = _OTHER.sub("", bare).translate(_ONE_KIND)
    for _ in range(DEPTH):
        brackets = brackets.replace("[]", "")  # takes the innermost level away
    if brackets:
        raise ValueError(_TOO_DEEP)
    return value


class _InParts:
    """Looks at a mapping piece by piece, and no further than a piece in which something is wrong.

    `most` is how many entries it may have.
    """

    def __init__(self, most: int) -> None:
        self._most = most

    def __call__(self, given: Any, look: ValidatorFunctionWrapHandler) -> Any:  # noqa: ANN401 - any
        if not isinstance(given, dict):
            return look(given)
        if len(given) > self._most:
            lengths = {"max_length": self._most, "actual_length": len(given)}
            raise PydanticKnownError("too_long", {"field_type": "Dictionary", **lengths})
        entries = list(given.items())
        found: dict[str, Any] = {}
        for at in range(0, len(entries), AT_ONCE):
            found |= look(dict(entries[at : at + AT_ONCE]))
        return found


def _absolute(folder: str) -> str:
    if not folder.startswith("/") or "\0" in folder:
        raise ValueError("is not an absolute path")
    return folder


Anything = Annotated[dict[str, Any], AfterValidator(_plain)]
JobName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]
Label = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f]+$", max_length=200)]
Ordinal = Annotated[int, Field(ge=0, lt=LARGEST)]
Param = str | int | float | bool


class Request(BaseModel):
    """A body. Unknown fields are refused, so that a misspelt one is not silently ignored."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def refuse_strangers(cls, given: Any) -> Any:  # noqa: ANN401 - whatever was sent
        """Refuse a crowd of unknown fields as one mistake; of a few each is told."""
        known = cls.model_fields
        if isinstance(given, Mapping) and len(given) > len(known) + NAMED:
            unknown = [name for name in given if name not in known]
            named = ", ".join(ascii(name)[:60] for name in unknown[:NAMED])
            raise ValueError(f"there are no such fields: {named}, and {len(unknown) - NAMED} more")
        return given

    def said(self) -> dict[str, Any]:
        """What was said: all fields but null, as they came."""
        return {name: value for name, value in self if value is not None}


class NewJob(Request):
    """What may be said of every job that is submitted; null says nothing."""

    priority: Annotated[int, Field(ge=PRIORITIES.start, lt=PRIORITIES.stop)] | None = None
    after: Annotated[list[Label], Field(max_length=1000, fail_fast=True)] | None = Field(
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
            dict[str, Param],
            Field(max_length=PARAMS),
            WrapValidator(_InParts(PARAMS)),
            AfterValidator(_plain),
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
Value = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
Resource = Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,32}$")]
SoftAndHard = Annotated[list[Limit], Field(min_length=2, max_length=2)]
_MANY_JOBS: TypeAdapter[list[Any]] = TypeAdapter(
    Annotated[list[AnyJob], Field(max_length=JOBS, fail_fast=True)]
)


def _jobs(given: Any, look: ValidatorFunctionWrapHandler) -> list[Any]:  # noqa: ANN401 - as above
    if isinstance(given, list) and len(given) > FEW:
        return _MANY_JOBS.validate_python(given)
    return cast("list[Any]", look(given))


class Surroundings(Request):
    """What jobs inherit from the one who submits them."""

    env: Annotated[
        dict[Variable, Value],
        Field(max_length=VARIABLES),
        WrapValidator(_InParts(VARIABLES)),
    ] = Field(default_factory=dict, json_schema_extra={"additionalProperties": False})
    env_keep: Annotated[list[Variable], Field(max_length=VARIABLES, fail_fast=True)] | None = Field(
        default=None,
        description="Variables that are stored though they look like secrets, with every job.",
    )
    umask: Annotated[int, Field(ge=0, le=0o777)] | None = None
    limits: Annotated[
        dict[Resource, SoftAndHard],
        Field(max_length=RESOURCES),
        WrapValidator(_InParts(RESOURCES)),
    ] = Field(
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
    jobs: Annotated[list[AnyJob], Field(min_length=1, max_length=JOBS), WrapValidator(_jobs)]
    surroundings: Surroundings = Field(default_factory=Surroundings)


class Retry(Request):
    """Which items of a batch job to try again; nothing: the job itself."""

    items: (
        Literal["quarantined"]
        | Annotated[list[Label | Ordinal], Field(min_length=1, max_length=100_000, fail_fast=True)]
        | None
    ) = Field(default=None, examples=["quarantined", ["photos/a.jpg", 7]])
