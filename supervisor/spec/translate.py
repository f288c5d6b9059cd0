"""Validation errors, in words for the author of a job file.

Owns the wording for every kind of error the models can give; no word of the validator's own
reaches a person.
"""

import re
from collections.abc import Callable, Mapping

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from supervisor.spec.fields import field_at, keys_at
from supervisor.spec.flow import in_flow
from supervisor.spec.places import Where, dotted
from supervisor.spec.problems import BadValue, Finding, closest, shown, suggest
from supervisor.spec.support import is_built, is_supported

Wording = tuple[str, str]
_KEY = "[key]"  # how the validator marks an error in a key instead of its value

# What a value of each kind is called, where a field wants one.
_KINDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "mapping_type": "a mapping",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "finite_number": "a finite number",
}


def translate(error: ValidationError, data: Mapping[str, object]) -> list[Finding]:
    """Return one finding for each place that is wrong."""
    places: dict[tuple[Where, bool], list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        if details["type"] == "too_short" and details["input"]:
            continue  # its entries are wrong, and reported one by one
        places.setdefault(_place(details, data), []).append(details)
    slips = {
        (*where[:-1], near)
        for (where, _), found in places.items()
        if found[0]["type"] == "extra_forbidden"
        and (near := closest(where[-1], keys_at(where[:-1])))
    }
    return [
        _finding(where, found, in_key=in_key)
        for (where, in_key), found in places.items()
        if not (found[0]["type"] == "missing" and where in slips)
    ]


def _place(details: ErrorDetails, data: Mapping[str, object]) -> tuple[Where, bool]:
    """Strip what the validator adds to a location: the members of a union, the mark of a key."""
    here: object = data
    where: Where = ()
    location = details["loc"]
    in_key = bool(location) and location[-1] == _KEY
    for part in location[:-1] if in_key else location:
        inner = _inside(here, part)
        is_missing = details["type"] == "missing" and part == location[-1]
        if inner is None and not is_missing:
            continue
        here = inner[0] if inner else None
        where = (*where, part)
    return where, in_key


def _inside(value: object, part: str | int) -> tuple[object] | None:
    if isinstance(value, Mapping):
        return (value[part],) if part in value else None
    return (value[part],) if isinstance(value, list) and isinstance(part, int) else None


def _finding(where: Where, found: list[ErrorDetails], *, in_key: bool) -> Finding:
    details = found[0]
    kind = details["type"]
    if kind == "missing":
        owner = dotted(where[:-1]) or "the job"
        return Finding(where, f"{owner} has no '{where[-1]}'", _example(where), key=True)
    if kind == "extra_forbidden":
        owner = f" in {dotted(where[:-1])}" if where[:-1] else ""
        near = closest(where[-1], keys_at(where[:-1]))
        built = [key for key in keys_at(where[:-1]) if is_supported((*where[:-1], key))]
        hint = f"did you mean '{near}'?" if near else f"known here: {', '.join(built)}"
        return Finding(where, f"unknown key {shown(where[-1])}{owner}", hint, key=True)
    if in_key and kind == "enum":
        message = f"unknown cause {shown(where[-1])} in {dotted(where[:-1])}"
        return Finding(where, message, suggest(where[-1], _choices(details)), key=True)
    many = len(found) > 1
    message, hint = (
        _alternatives(where, found) if many else _WORDING.get(kind, _misplaced)(where, details)
    )
    return Finding(where, f"{dotted(where)}: {message}", hint, key=in_key)


def _alternatives(where: Where, found: list[ErrorDetails]) -> Wording:
    wanted = [_KINDS[details["type"]] for details in found if details["type"] in _KINDS]
    message = f"{shown(found[0]['input'])} where {' or '.join(dict.fromkeys(wanted))} belongs"
    return message, _example(where)


def _wrong_kind(where: Where, details: ErrorDetails) -> Wording:
    given = details["input"]
    return f"{shown(given)} where {_KINDS[details['type']]} belongs", _example(where)


def _not_text(where: Where, details: ErrorDetails) -> Wording:
    given = details["input"]
    message = f"{shown(given)} where text belongs"
    if given is None:
        return message, 'write "" for an empty text, or remove it'
    if isinstance(given, (bool, int, float)):
        return message, f'put it in quotes: "{shown(given)}"'
    return message, _example(where)


def _not_a_list(where: Where, details: ErrorDetails) -> Wording:
    given = details["input"]
    message = f"{shown(given)} where a list belongs"
    if isinstance(given, (str, int, float)):
        return message, f"write {dotted(where[-1:])}: {in_flow([given])}"
    return message, _example(where)


def _not_a_choice(where: Where, details: ErrorDetails) -> Wording:
    choices = [choice for choice in _choices(details) if is_built(where, choice)]
    given = details["input"]
    return f"{shown(given)} is not one of {', '.join(choices)}", (
        f"did you mean '{near}'?" if (near := closest(given, choices)) else ""
    )


def _bound(word: str, name: str) -> Callable[[Where, ErrorDetails], Wording]:
    def wording(_: Where, details: ErrorDetails) -> Wording:
        limit = details["ctx"][name]
        return f"{shown(details['input'])} is out of bounds", f"{word} {in_flow(limit)}"

    return wording


def _empty(where: Where, details: ErrorDetails) -> Wording:
    what = "an empty list" if details["type"] == "too_short" else "an empty text"
    return f"{what} means nothing here", _example(where) or "remove it for the default"


def _too_long(_: Where, details: ErrorDetails) -> Wording:
    return "too many entries", f"at most {details['ctx']['max_length']}"


def _bad_name(_: Where, details: ErrorDetails) -> Wording:
    given = str(details["input"])
    near = re.sub(r"[^A-Za-z0-9._-]+", "-", given).lstrip("-._")[:64].rstrip("-")
    hint = "letters, digits, '.', '_' and '-', at most 64, beginning with a letter or digit"
    return f"{shown(given)} cannot name a job", f"such as {near}\n{hint}" if near else hint


def _misplaced(where: Where, details: ErrorDetails) -> Wording:
    # No kind is known that the table lacks; a newer validator may still have one.
    return f"{shown(details['input'])} does not belong here", _example(where)


def _own(_: Where, details: ErrorDetails) -> Wording:
    error = details["ctx"]["error"]
    return str(error), error.hint if isinstance(error, BadValue) else ""


_WORDING: Mapping[str, Callable[[Where, ErrorDetails], Wording]] = {
    **dict.fromkeys(_KINDS, _wrong_kind),
    "string_type": _not_text,
    "tuple_type": _not_a_list,
    "literal_error": _not_a_choice,
    "enum": _not_a_choice,
    "greater_than_equal": _bound("at least", "ge"),
    "greater_than": _bound("above", "gt"),
    "less_than_equal": _bound("at most", "le"),
    "string_too_short": _empty,
    "too_short": _empty,
    "too_long": _too_long,
    "string_pattern_mismatch": _bad_name,
    "value_error": _own,
}


def _choices(details: ErrorDetails) -> list[str]:
    return re.findall(r"'([^']*)'", str(details["ctx"]["expected"]))


def _example(where: Where) -> str:
    """Show what a field looks like when it is right; nothing where no example is known."""
    found = field_at(where)
    if found is None or not found[1].examples:
        return ""
    return f"such as {where[-1]}: {in_flow(found[1].examples[0])}"
