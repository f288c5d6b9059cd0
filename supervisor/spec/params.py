"""`params`: values a job file declares and `-p name=value` gives.

Owns declaration, types and bounds; substitute.py puts the values where the file says `${name}`.
Invariant: a value is the text somebody wrote, never a number printed again.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from supervisor.spec.nodes import Node, Plain, Scalar, Sequence, Table
from supervisor.spec.places import Where
from supervisor.spec.problems import BadValue, Finding, shown, suggest

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_INT = re.compile(r"[-+]?[0-9]{1,300}")
_FLOAT = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?")
_TYPES = ("float", "int", "str", "bool")


@dataclass(frozen=True, slots=True)
class _Declared:
    """One param as declared: its type, its bounds, the default's text."""

    name: str
    type: str
    default: str | None
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]


@dataclass(slots=True)
class Params:
    """The outcome: the text of every param that has one, all declared names, what is wrong.

    `typed` are those that are no mere text: numbers and flags.
    """

    values: dict[str, str] = field(default_factory=dict)
    typed: set[str] = field(default_factory=set)
    names: tuple[str, ...] = ()
    findings: list[Finding] = field(default_factory=list)


def read_params(root: Table, given: Mapping[str, str]) -> Params:
    """Read the declarations in a tree and the values given on the command line."""
    outcome = Params()
    section = root.get("params")
    pairs = section.pairs if isinstance(section, Table) else ()
    outcome.names = tuple(key.text for key, _ in pairs)
    for name, value in given.items():
        if name not in outcome.names:
            outcome.findings.append(_surplus(name, value, outcome.names))
    for key, node in pairs:
        if not _NAME.fullmatch(key.text):
            hint = "a letter or _, then letters, digits and _"
            message = f"{shown(key.text)} cannot name a param"
            outcome.findings.append(Finding(("params", key.text), message, hint, key=True))
            continue
        declared = _declared(key.text, node, outcome.findings)
        if declared is not None:
            if declared.type != "str":
                outcome.typed.add(declared.name)
            _take_value(declared, given.get(key.text), outcome)
    return outcome


def _surplus(name: str, value: str, names: tuple[str, ...]) -> Finding:
    hint = suggest(name, names) if names else f"declare it first: params: {{{name}: {value}}}"
    message = f"this job has no param {shown(name)}"
    return Finding((), message, hint, option=f"{name}={value}")


def _declared(name: str, node: Node, findings: list[Finding]) -> _Declared | None:
    where: Where = ("params", name)
    if isinstance(node, Scalar):
        if node.value is None:
            message = f"param {shown(name)} has neither type nor default"
            findings.append(Finding(where, message, f"such as {name}: {{type: float}}"))
            return None
        return _Declared(name, _type_of(node.value), node.text, None, None, ())
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
    declared = _Declared(
        name,
        named,
        default.text if default else None,
        _bound(node, "min"),
        _bound(node, "max"),
        texts,
    )
    findings.extend(_contradictions(declared))
    return declared


def _contradictions(declared: _Declared) -> Iterator[Finding]:
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
    for at, text in enumerate(declared.choices):
        if wrong := _wrong(unbound, text):
            message = f"params.{declared.name}.choices[{at}]: {wrong}"
            yield Finding((*where, "choices", at), message, wrong.hint)
    if declared.default is not None and (wrong := _wrong(declared, declared.default)):
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


def _take_value(declared: _Declared, given: str | None, outcome: Params) -> None:
    where: Where = ("params", declared.name)
    if given is None:
        if declared.default is None:
            message = f"param {shown(declared.name)} has no default and is not given"
            hint = f"add -p {declared.name}=... ({declared.type})"
            outcome.findings.append(Finding(where, message, hint, key=True))
        else:
            outcome.values[declared.name] = declared.default
        return
    if wrong := _wrong(declared, given):
        option = f"{declared.name}={given}"
        outcome.findings.append(Finding(where, str(wrong), wrong.hint, key=True, option=option))
    else:
        outcome.values[declared.name] = given


def _wrong(declared: _Declared, text: str) -> BadValue | None:
    """Say what keeps a text from being a value of the param; None when nothing does."""
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        return BadValue(f"{shown(text)} cannot be handed to a program", "it is not plain text")
    problem = _NOT_OF_TYPE[declared.type](text)
    if problem is not None:
        return problem
    is_number = declared.type in ("int", "float")
    known = {float(choice) for choice in declared.choices} if is_number else declared.choices
    if declared.choices and (float(text) if is_number else text) not in known:
        return BadValue(f"{shown(text)} is not one of the choices", suggest(text, declared.choices))
    if is_number:
        number = float(text)
        if declared.minimum is not None and number < declared.minimum:
            return BadValue(f"{text} is below the least, {declared.minimum:g}", "give a larger one")
        if declared.maximum is not None and number > declared.maximum:
            return BadValue(f"{text} is above the most, {declared.maximum:g}", "give a smaller one")
    return None


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
