"""What job.yaml says to the queue: when a job's turn comes, and how many jobs the file makes.

Owns these kinds of value, and the words that refuse them; queues nothing. `run` has no queue: of
all this it heeds `array` alone, by refusing it.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Annotated, Final

from pydantic import AfterValidator, Field, WithJsonSchema

from supervisor.spec.kinds import UNFILLED, Argument
from supervisor.spec.problems import BadValue, shown

LEAST_PRIORITY: Final = -100
MOST_PRIORITY: Final = 100
MOST_FAILURES: Final = 10_000
_LONGEST_KEY = 256
_LONGEST_GROUP = 64
_LONGEST_ID = 96  # a job's name, the digits of its folder, and which fresh start it is
_MARKS = "._-"


def _is_name(text: str, longest: int) -> bool:
    fits = all(char.isascii() and (char.isalnum() or char in _MARKS) for char in text)
    return fits and text[:1].isalnum() and len(text) <= longest


def is_group(name: object) -> bool:
    """Tell whether this can name a group; what names a job can."""
    return isinstance(name, str) and _is_name(name, _LONGEST_GROUP)


def count_jobs(array: Mapping[str, Sequence[str]]) -> int:
    """Return how many combinations these values have; one, where nothing is open."""
    return prod(len(values) for values in array.values())


def _job(text: str) -> str:
    if not _is_name(text, _LONGEST_ID):
        hint = "the name of a job, or its id as `supervise ps` shows it, such as prepare-3fa2c1"
        raise BadValue(f"{shown(text)} is no job's name or id", hint)
    return text


def _group(text: str) -> str:
    if not is_group(text):
        marks = f"letters, digits, '.', '_' and '-', at most {_LONGEST_GROUP}"
        hint = f"such as sweep-1\n{marks}, beginning with a letter or digit"
        raise BadValue(f"{shown(text)} cannot name a group", hint)
    return text


def _key(text: str) -> str:
    if not text.strip():
        raise BadValue("an empty key is none", "remove it, or write such as nightly-2026-05-17")
    if not text.isprintable():
        raise BadValue(f"{shown(text)} holds what cannot be printed", "letters, digits and marks")
    if len(text) > _LONGEST_KEY:
        raise BadValue(f"a key of {len(text)} characters", f"at most {_LONGEST_KEY}")
    return text


# Each is taken as it is written, also where it looks like a number, so the schema allows that.
_AS_WRITTEN = WithJsonSchema({"type": ["string", "number", "boolean"]})

Priority = Annotated[int, Field(strict=True, ge=LEAST_PRIORITY, le=MOST_PRIORITY), UNFILLED]
Failures = Annotated[int, Field(strict=True, ge=1, le=MOST_FAILURES), UNFILLED]
Reference = Annotated[str, AfterValidator(_job), _AS_WRITTEN]
Key = Annotated[str, AfterValidator(_key), _AS_WRITTEN]
Group = Annotated[str, AfterValidator(_group), _AS_WRITTEN]
Values = Annotated[tuple[Argument, ...], Field(min_length=1)]
