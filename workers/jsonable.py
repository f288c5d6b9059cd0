"""Makes the JSON text of what a user's function returned, or says what in it is not JSON.

Owns that text and the advice. Never changes a value to make it fit: what is in the results is what
was returned. Invariant: the text is ASCII and holds no NaN, so any reader of JSON can read it.
"""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEEPEST = 100  # levels that are searched for what is wrong

# One for all calls: json.dumps would make a new one each time.
_text_of: Callable[[object], str] = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class BadResult(Exception):
    """What the entry returned or left behind is not what it must be."""

    kind = "bad_result"


def json_of(value: object, name: str = "the result") -> bytes:
    """Return the JSON text of a value. Raises BadResult, which says where what is wrong."""
    try:
        return _text_of(value).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        problem = next(_problems(value, name, 0), None)
        raise BadResult(problem or f"{name} is not JSON: {error}") from None


def _problems(value: object, where: str, depth: int) -> Iterator[str]:
    if depth > DEEPEST:
        yield f"{where[: where.find('[')]} is nested deeper than {DEEPEST} levels, or holds itself"
    elif isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, (str, int, float, type(None))):
                yield f"{where} has the key {key!r}, a {_kind(key)}: keys in JSON are texts"
            yield from _problems(inner, f"{where}[{key!r}]", depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            yield from _problems(inner, f"{where}[{index}]", depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield f"{where} is {value!r}, which JSON does not have: return None, or leave it out"
    elif not isinstance(value, (str, int, type(None))):
        yield f"{where} is a {_kind(value)}, which JSON does not have: {_advice(value)}"


def _kind(value: object) -> str:
    kind = type(value)
    return (
        kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{_name(kind)}"
    )


def _name(kind: type) -> str:
    return kind.__qualname__


def _advice(value: object) -> str:
    if hasattr(value, "tolist"):  # numpy and torch, both without importing them
        single = getattr(value, "ndim", None) == 0
        return "return its .item()" if single else "return its .tolist(), or write a file"
    if isinstance(value, os.PathLike):
        return "return str(path)"
    if isinstance(value, (set, frozenset)):
        return "return sorted(it)"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "write it to a file of workers.outputs.output(name), and return the name"
    if hasattr(value, "__await__"):
        return "the entry must be a plain function, not an async one"
    if hasattr(value, "__next__"):
        return "return list(it)"
    if hasattr(value, "__dataclass_fields__"):
        return "return dataclasses.asdict(it)"
    return "return text, numbers, true, false, None, and lists and dicts of these"
