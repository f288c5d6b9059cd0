"""`params`: values a job file declares and `-p name=value` gives.

Owns which text each param stands for; declared.py says what may be one, array_params.py reads lists
of them, and substitute.py puts the text where the file says `${name}`.
Invariant: a value is the text somebody wrote, never a number printed again.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from supervisor.spec.array_params import Asked, ask_arrays
from supervisor.spec.declared import Declared, read_declared, wrong_value
from supervisor.spec.nodes import Table
from supervisor.spec.places import Where
from supervisor.spec.problems import Finding, shown, suggest

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


@dataclass(slots=True)
class Params:
    """The outcome: the text of every param that has one, all declared names, what is wrong.

    `typed` are those that are no mere text: numbers and flags. `arrays` are the values of
    those that an array is over; None where nobody can read them. Until one of them is `chosen`,
    such a param stands for its first.
    """

    values: dict[str, str] = field(default_factory=dict)
    typed: set[str] = field(default_factory=set)
    names: tuple[str, ...] = ()
    findings: list[Finding] = field(default_factory=list)
    arrays: dict[str, tuple[str, ...]] | None = field(default_factory=dict)
    is_chosen: bool = False

    def chosen(self, values: Mapping[str, str]) -> "Params":
        """Return the params of one job of the array; its values are checked already."""
        arrays: dict[str, tuple[str, ...]] = {name: (text,) for name, text in values.items()}
        filled = {**self.values, **values}
        return replace(self, values=filled, findings=[], arrays=arrays, is_chosen=True)


def read_params(
    root: Table, given: Mapping[str, str], arrays: Mapping[str, Sequence[str]] | None = None
) -> Params:
    """Read the declarations in a tree, and what is given on the command line.

    `given` has one value for a param; `arrays` has several, as `array` in the tree has.
    """
    outcome = Params()
    section = root.get("params")
    pairs = section.pairs if isinstance(section, Table) else ()
    outcome.names = tuple(key.text for key, _ in pairs)
    several = {name: ",".join(values) for name, values in (arrays or {}).items()}
    for name, value in {**given, **several}.items():
        if name not in outcome.names:
            outcome.findings.append(_surplus(name, value, outcome.names))
    declared: dict[str, Declared] = {}
    for key, node in pairs:
        if not _NAME.fullmatch(key.text):
            hint = "a letter or _, then letters, digits and _"
            message = f"{shown(key.text)} cannot name a param"
            outcome.findings.append(Finding(("params", key.text), message, hint, key=True))
        elif (found := read_declared(key.text, node, outcome.findings)) is not None:
            declared[found.name] = found
    asked = Asked(declared, outcome.names, given, arrays or {})
    outcome.arrays = ask_arrays(root.get("array"), asked, outcome.findings)
    for one in declared.values():
        if one.type != "str":
            outcome.typed.add(one.name)
        _take_value(one, given.get(one.name), outcome)
    return outcome


def _surplus(name: str, value: str, names: tuple[str, ...]) -> Finding:
    hint = suggest(name, names) if names else f"declare it first: params: {{{name}: {value}}}"
    message = f"this job has no param {shown(name)}"
    return Finding((), message, hint, option=f"{name}={value}")


def _take_value(declared: Declared, given: str | None, outcome: Params) -> None:
    where: Where = ("params", declared.name)
    if given is None:
        if outcome.arrays is None or declared.name in outcome.arrays:
            outcome.values.update(_first(declared.name, outcome))
        elif declared.default is None:
            message = f"param {shown(declared.name)} has no default and is not given"
            hint = f"add -p {declared.name}=... ({declared.type})"
            outcome.findings.append(Finding(where, message, hint, key=True))
        else:
            outcome.values[declared.name] = declared.default
        return
    if wrong := wrong_value(declared, given):
        option = f"{declared.name}={given}"
        hint = wrong.hint
        if "," in given and declared.type != "str":
            hint += "\none value here; `supervise submit` makes a job of each of several"
        outcome.findings.append(Finding(where, str(wrong), hint, key=True, option=option))
    else:
        outcome.values[declared.name] = given


def _first(name: str, outcome: Params) -> dict[str, str]:
    """Return the first value of an array, if there is one that can be read."""
    values = (outcome.arrays or {}).get(name)
    return {name: values[0]} if values else {}
