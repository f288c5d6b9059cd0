"""The kinds of value that only batch jobs have: entries, items, arguments of a user's function.

Owns their form alone: what an entry names is imported by a worker and never here.
Every refusal is a BadValue, whose sentence a person can act on.
"""

import math
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from supervisor.spec.kinds import SIZE_SCHEMA, Text
from supervisor.spec.nodes import Filled, FilledValue, plain_value
from supervisor.spec.places import Where, dotted
from supervisor.spec.problems import BadValue, closest, shown
from supervisor.spec.units import read_size, write_size

_NAME = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*"
_ENTRY = re.compile(rf"{_NAME}:{_NAME}")
_MODULE = re.compile(_NAME)
MODEL_FILES: Final = (".pt", ".pt2", ".pth", ".ts")
VIT: Final = "vit"
_SIDES = 2
_LEAST_GROWTH_BYTES = 1024**2
_MOST_PIXELS = 16_384


def is_entry(text: str) -> bool:
    """Tell whether a text has the form of an entry: `pkg.module:name`."""
    return _ENTRY.fullmatch(text) is not None


def entry_for(text: str, name: str) -> str:
    """Return an entry; BadValue for any other text, with `name` as what a function is called."""
    if is_entry(text):
        return text
    raise BadValue(f"{shown(text)} does not name a function", _meant_entry(text, name))


def _entry(text: str) -> str:
    return entry_for(text, "handle")


def _meant_entry(text: str, usual: str) -> str:
    hint = f"write module:name, such as pkg.module:{usual}"
    path, _, name = text.partition(":")
    if path.endswith(".py"):
        module = ".".join(PurePosixPath(path.removesuffix(".py")).parts)
        return f"write {module}:{name or usual}" if _MODULE.fullmatch(module) else hint
    module, _, last = text.rpartition(".")
    return f"write {module}:{last}" if _ENTRY.fullmatch(f"{module}:{last}") else hint


def _model(text: str) -> str:
    if is_entry(text) or (":" not in text and text.endswith(MODEL_FILES)):
        return text
    hint = "write pkg:build for a function that builds it, or name a .pt or .pt2 file"
    raise BadValue(f"{shown(text)} is neither a function nor a file of a model", hint)


def _items(text: str) -> str:
    if not text.strip():
        raise BadValue(f"{shown(text)} names no items", "such as photos/*.jpg or items.txt")
    if "\0" in text or "\n" in text:
        raise BadValue(f"{shown(text)} is not a path", "such as photos/*.jpg or items.txt")
    return text


def _module(text: str) -> str:
    if not _MODULE.fullmatch(text):
        raise BadValue(f"{shown(text)} does not name a module", "such as torch or my.package")
    return text


def _reshape(text: str) -> str:
    if text != VIT and closest(text, (VIT,)):
        raise BadValue(f"{shown(text)} is not a way to reshape", f"did you mean '{VIT}'?")
    return text if text == VIT else _entry(text)


def _target(value: object) -> int | str:
    given = plain_value(value) if isinstance(value, Filled) else value
    if isinstance(given, int) and not isinstance(given, bool):
        if given < 0:
            raise BadValue(f"{given} is not the number of a class", "they are counted from 0")
        return given
    if isinstance(given, str) and given:
        return given
    raise BadValue(f"{shown(given)} is no class", "give its number, its label or pkg:choose")


def _picture_size(value: object) -> tuple[int, ...]:
    """Return height and width; one number stands for both."""
    sides = value if isinstance(value, (list, tuple)) else (value, value)
    plain = tuple(plain_value(side) if isinstance(side, Filled) else side for side in sides)
    fits = len(plain) == _SIDES and all(
        isinstance(side, int) and not isinstance(side, bool) and 1 <= side <= _MOST_PIXELS
        for side in plain
    )
    if not fits:
        raise BadValue(
            f"{shown(value)} is not the size of a picture", "such as 224, or [height, width]"
        )
    return tuple(side for side in plain if isinstance(side, int))


def _growth(value: object) -> int:
    count = read_size(plain_value(value) if isinstance(value, Filled) else value)
    if count < _LEAST_GROWTH_BYTES:
        raise BadValue(
            f"{write_size(count)} is what any worker grows by",
            "at least 1MiB; null for no limit; a number without a unit counts bytes",
        )
    return count


def _arguments(value: object) -> object:
    """Return arguments as JSON can carry them; `${param}` alone is a value of the param's type."""
    return _argument(value, ()) if isinstance(value, Mapping) else value


def _argument(value: object, where: Where) -> object:
    if isinstance(value, Mapping):
        return {str(key): _argument(inner, (*where, str(key))) for key, inner in value.items()}
    if isinstance(value, list):
        return [_argument(inner, (*where, at)) for at, inner in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        hint = "write it as text, or leave it out"
        raise BadValue(f"{dotted(where)} is not a finite number", hint)
    if isinstance(value, FilledValue):
        return plain_value(value)
    return str(value) if isinstance(value, str) else value


ENTRY_SCHEMA: Final = {"type": "string", "pattern": "^[^:]+:[^:]+$"}
Entry = Annotated[Text, AfterValidator(_entry), WithJsonSchema(ENTRY_SCHEMA)]
Model = Annotated[Text, AfterValidator(_model)]
Items = Annotated[Text, AfterValidator(_items)]
Module = Annotated[Text, AfterValidator(_module)]
Growth = Annotated[int, BeforeValidator(_growth), WithJsonSchema(SIZE_SCHEMA)]
Reshape = Annotated[Text, AfterValidator(_reshape)]
Target = Annotated[
    int | str,
    BeforeValidator(_target),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]}),
]
PictureSize = Annotated[
    tuple[int, ...],
    BeforeValidator(_picture_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {
                    "type": "array",
                    "items": {"type": "integer", "minimum": 1},
                    "minItems": _SIDES,
                    "maxItems": _SIDES,
                },
            ]
        }
    ),
]
Arguments = Annotated[Mapping[str, object], BeforeValidator(_arguments)]
