"""The arguments of a question: which there may be, and what each may hold.

Owns their kinds and the words that refuse them. Invariant: a question's function sees every field
that it declares, of the declared kind, whatever was sent.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from supervisor.daemon.contracts import Json, Refusal

JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
MOST_IDS = 100_000
LONGEST_SHOWN = 60

Arguments = Mapping[str, Json]
Kind = Callable[[str, Json], Json]


@dataclass(frozen=True, slots=True)
class Field:
    """One argument. Without it `default` holds, unless it is `required`."""

    kind: Kind
    default: Json = None
    required: bool = False


def needed(kind: Kind) -> Field:
    """An argument that must be there."""
    return Field(kind, required=True)


def read(question: str, fields: Mapping[str, Field], given: Json) -> Arguments:
    """Check what was sent. Raises Refusal naming the argument at fault."""
    if not isinstance(given, Mapping):
        raise Refusal(f"{question}: the arguments are no JSON object")
    if unknown := [shown(name) for name in given if name not in fields]:
        raise Refusal(f"{question}: unknown here: {', '.join(unknown[:5])}")
    values = {}
    for name, field in fields.items():
        if name in given:
            values[name] = field.kind(f"{question}: {name}", given[name])
        elif field.required:
            raise Refusal(f"{question}: {name} is missing")
        else:
            values[name] = field.default
    return values


def job_id(name: str, value: Json) -> str:
    """An id, which is also the name of a folder: no separators, no dots in front."""
    if not (isinstance(value, str) and JOB_ID.fullmatch(value)):
        raise Refusal(f"{name}: {shown(value)} is no id of a job")
    return value


def job_ids(name: str, value: Json) -> list[str]:
    """Several ids."""
    return [job_id(name, one) for one in _listed(name, value, MOST_IDS)]


def whole(low: int, high: int) -> Kind:
    """A whole number from `low` to `high`."""

    def read_whole(name: str, value: Json) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise Refusal(f"{name}: not a whole number from {low} to {high}: {shown(value)}")
        return value

    return read_whole


def number(name: str, value: Json) -> float:
    """A finite number, zero or more."""
    fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits or not 0 <= value < math.inf or value > 1 << 62:
        raise Refusal(f"{name}: not a number of zero or more: {shown(value)}")
    return float(value)


def text(longest: int) -> Kind:
    """Text that can be encoded, of at most so many characters."""

    def read_text(name: str, value: Json) -> str:
        if not isinstance(value, str) or len(value) > longest or not _encodable(value):
            raise Refusal(f"{name}: not a text of at most {longest} characters: {shown(value)}")
        return value

    return read_text


def flag(name: str, value: Json) -> bool:
    """True or false, and no 1 or 0."""
    if not isinstance(value, bool):
        raise Refusal(f"{name}: neither true nor false: {shown(value)}")
    return value


def one_of(*words: str) -> Kind:
    """One of these words."""

    def read_word(name: str, value: Json) -> str:
        if not isinstance(value, str) or value not in words:
            raise Refusal(f"{name}: none of {', '.join(words)}: {shown(value)}")
        return value

    return read_word


def mapping(name: str, value: Json) -> Mapping[str, Json]:
    """A JSON object."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise Refusal(f"{name}: not a JSON object: {shown(value)}")
    return value


def each(kind: Kind, most: int) -> Kind:
    """A list of at most so many, each of a kind."""

    def read_each(name: str, value: Json) -> list[Json]:
        found = _listed(name, value, most)
        return [kind(f"{name}[{at}]", one) for at, one in enumerate(found)]

    return read_each


def either(kind: Kind) -> Kind:
    """Null, or of a kind."""
    return lambda name, value: None if value is None else kind(name, value)


def shown(value: object) -> str:
    """Write a value within a sentence, printable and short."""
    if isinstance(value, Mapping | list):
        return "an object" if isinstance(value, Mapping) else "a list"
    if isinstance(value, int) and value.bit_length() > LONGEST_SHOWN:
        return "a number too large"  # Python refuses to print those of thousands of digits
    plain = ascii(value)
    return plain if len(plain) <= LONGEST_SHOWN else f"{plain[:LONGEST_SHOWN]}..."


def _listed(name: str, value: Json, most: int) -> Sequence[Json]:
    if not isinstance(value, list | tuple) or len(value) > most:
        raise Refusal(f"{name}: not a list of at most {most}: {shown(value)}")
    return value


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value
