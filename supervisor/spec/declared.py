"""A param as job.yaml declares it: its type, its bounds, and what may be its value.

Owns one declaration; params.py reads all of them, and what is given for them.
Invariant: a value is the text somebody wrote, never a number printed again.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from supervisor.spec.nodes import Node, Plain, Scalar, Sequence, Table
from supervisor.spec.places import Where
from supervisor.spec.problems import BadValue, Finding, shown, suggest

_INT = re.compile(r"[-+]?[0-9]{1,300}")
_FLOAT = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?")
_TYPES = ("float", "int", "str", "bool")


@dataclass(frozen=True, slots=True)
class Declared:
    """One param as declared: its type, its bounds, the default's text."""

    name: str
    type: str
    default: str | None
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]


def read_declared(name: str, node: Node, findings: list[Finding]) -> Declared | None:
    """Return a declaration, None where it is none; what is wrong is added to the findings."""
    where: Where = ("params", name)
    if isinstance(node, Scalar):
        if node.value is None:
            message = f"param {shown(name)} has neither type nor default"
            findings.append(Finding(where, message, f"such as {name}: {{type: float}}"))
            return None
        return Declared(name, _type_of(node.value), node.text, None, None, ())
    if not isinstance(node, Table):
        return None  # the models say what a param looks like
    default, choices = _scalar(node, "default"), node.get("choices")
    type_ = _scalar(node, "type")
    inferred = _type_of(default.value) if default else ""
    named = type_.text if type_ else inferred
    if named not in _TYPES:
        if type_ is None:
            message = f"param {shown(name)} has neither type nor default"
            findings.append(Finding(where, message, f"such as {name}: {{type: float}}", key=True))
        return None
    items = choices.items if isinstance(choices, Sequence) else ()
    texts = tuple(item.text for item in items if isinstance(item, Scalar))
    declared = Declared(
        name,
        named,
        default.text if default else None,
        _bound(node, "min"),
        _bound(node, "max"),
        texts,
    )
    findings.extend(_contradictions(declared))
    return declared


def _contradictions(declared: Declared) -> Iterator[Finding]:
    where: Where = ("params", declared.name)
    low, high = declared.minimum, declared.maximum
    if declared.type in ("str", "bool"):
        for key, bound in (("min", low), ("max", high)):
            if bound is not None:
                message = f"'{key}' means nothing for a {declared.type}"
                yield Finding((*where, key), message, "remove it", key=True)
        low = high = None
    if low is not None and high is not None and low > high:
        yield Finding((*where, "min"), "'min' is above 'max'", "swap them")
        return
    unbound = replace(declared, choices=(), minimum=low, maximum=high)
    slips = [(at, wrong_value(unbound, text)) for at, text in enumerate(declared.choices)]
    for at, wrong in slips:
        if wrong is not None:
            message = f"params.{declared.name}.choices[{at}]: {wrong}"
            yield Finding((*where, "choices", at), message, wrong.hint)
    if any(wrong for _, wrong in slips):
        return  # whether the default is one of them shows when they are right
    if declared.default is not None and (wrong := wrong_value(declared, declared.default)):
        yield Finding((*where, "default"), f"params.{declared.name}.default: {wrong}", wrong.hint)


def _scalar(table: Table, key: str) -> Scalar | None:
    found = table.get(key)
    return found if isinstance(found, Scalar) and found.value is not None else None


def _bound(table: Table, key: str) -> float | None:
    found = _scalar(table, key)
    value = found.value if found else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None  # the models say that a bound is a number
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value)


def _type_of(value: Plain) -> str:
    return type(value).__name__


def wrong_value(declared: Declared, text: str) -> BadValue | None:
    """Say what keeps a text from being a value of the param; None when nothing does."""
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        return BadValue(f"{shown(text)} cannot be handed to a program", "it is not plain text")
    problem = _NOT_OF_TYPE[declared.type](text)
    if problem is not None:
        return problem
    if declared.choices and meaning(declared, text) not in _meant(declared):
        return BadValue(f"{shown(text)} is not one of the choices", suggest(text, declared.choices))
    if declared.type in ("int", "float"):
        number = float(text)
        if declared.minimum is not None and number < declared.minimum:
            return BadValue(f"{text} is below the least, {declared.minimum:g}", "give a larger one")
        if declared.maximum is not None and number > declared.maximum:
            return BadValue(f"{text} is above the most, {declared.maximum:g}", "give a smaller one")
    return None


def meaning(declared: Declared, text: str) -> str | int | float:
    """Return what makes two right values of the param the same: 0.1 and 1e-1 are one number."""
    return _MEANING[declared.type](text)


@lru_cache(maxsize=64)
def _meant(declared: Declared) -> frozenset[str | int | float]:
    """Return what the choices mean; one that is none of the type is reported, and means nothing."""
    right = _NOT_OF_TYPE[declared.type]
    return frozenset(meaning(declared, each) for each in declared.choices if right(each) is None)


def _not_int(text: str) -> BadValue | None:
    ok = _INT.fullmatch(text)
    return None if ok else BadValue(f"{shown(text)} is not an int", "such as 30; digits alone")


def _not_float(text: str) -> BadValue | None:
    ok = _FLOAT.fullmatch(text) and abs(float(text)) != float("inf")
    return None if ok else BadValue(f"{shown(text)} is not a float", "such as 0.1 or 3e-4")


def _not_bool(text: str) -> BadValue | None:
    ok = text.lower() in ("true", "false")
    return None if ok else BadValue(f"{shown(text)} is not a bool", "write true or false")


_NOT_OF_TYPE: Mapping[str, Callable[[str], BadValue | None]] = {
    "int": _not_int,
    "float": _not_float,
    "bool": _not_bool,
    "str": lambda _: None,
}
_MEANING: Mapping[str, Callable[[str], str | int | float]] = {
    "int": int,
    "float": float,
    "bool": str.lower,
    "str": str,
}
