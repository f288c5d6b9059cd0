"""`array`: several values of a param, of which each makes a job of its own.

Owns how these values are read and checked; arrays.py makes the jobs.
Invariant: what is read without a finding are values that their params may have, each once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from supervisor.spec import nodes
from supervisor.spec.declared import Declared, meaning, wrong_value
from supervisor.spec.nodes import Node, Scalar, Table
from supervisor.spec.places import Where
from supervisor.spec.problems import Finding, shown, suggest
from supervisor.spec.queue_sections import count_jobs

MAX_JOBS: Final = 10_000  # of one array; nobody waits for more, and a slip makes millions


@dataclass(frozen=True, slots=True)
class Asked:
    """What `array` is measured by: the params declared rightly, all names, and the command line's.

    `given` has one value for a param, which no array is over then; `arrays` has several.
    """

    declared: Mapping[str, Declared]
    names: tuple[str, ...]
    given: Mapping[str, str]
    arrays: Mapping[str, Sequence[str]]


def ask_arrays(
    node: Node | None, asked: Asked, findings: list[Finding]
) -> dict[str, tuple[str, ...]] | None:
    """Return the values of each param that an array is over, those of the file first.

    Values on the command line come before the file's. None where the file's have no such shape: the
    models say so.
    """
    written = _written(node)
    if written is None:
        return None
    for name, items in written.items():
        findings.extend(_of_file(name, items, asked))
    for name, values in asked.arrays.items():
        findings.extend(_of_options(name, values, asked))
    texts = {name: tuple(item.text for item in items) for name, items in written.items()}
    texts |= {name: tuple(values) for name, values in asked.arrays.items()}
    arrays = {
        name: values
        for name, values in texts.items()
        if name in asked.names and name not in asked.given and values
    }
    if (count := count_jobs(arrays)) > MAX_JOBS:
        counts = " x ".join(str(len(values)) for values in arrays.values())
        message = f"the array makes {count:,} jobs ({counts}); at most {MAX_JOBS:,}"
        where: Where = ("array",) if written else ()
        option = "" if written else " -p ".join(f"{name}=..." for name in arrays)
        hint = "submit a part of it at a time"
        findings.append(Finding(where, message, hint, key=True, option=option))
    return arrays


def _written(node: Node | None) -> dict[str, list[Scalar]] | None:
    if node is None:
        return {}
    if not isinstance(node, Table):
        return None
    written: dict[str, list[Scalar]] = {}
    for key, value in node.pairs:
        items = value.items if isinstance(value, nodes.Sequence) else ()
        plain = [item for item in items if isinstance(item, Scalar) and item.value is not None]
        if not plain or len(plain) < len(items):
            return None
        written[key.text] = plain
    return written


def _of_file(name: str, items: Sequence[Scalar], asked: Asked) -> Iterator[Finding]:
    where: Where = ("array", name)
    if name not in asked.names:
        message = f"array: this job has no param {shown(name)}"
        hint = f"declare it first: params: {{{name}: {items[0].text}}}"
        yield Finding(where, message, suggest(name, asked.names) if asked.names else hint, key=True)
    declared = asked.declared.get(name)
    if declared is None:
        return  # what is wrong with it is said where it is declared
    for at, (text, first) in enumerate(_repeated(declared, [item.text for item in items])):
        place = f"array.{name}[{at}]"
        if wrong := wrong_value(declared, text):
            yield Finding((*where, at), f"{place}: {wrong}", wrong.hint)
        elif first != at:
            message = f"{place}: {shown(text)} is the same as array.{name}[{first}]"
            yield Finding((*where, at), message, "remove one of them: each value makes a job")


def _of_options(name: str, values: Sequence[str], asked: Asked) -> Iterator[Finding]:
    declared = asked.declared.get(name)
    where: Where = ("params", name)
    if declared is None:
        return  # that it is none is said as of any option
    if not values or name in asked.given:
        message = "it is given as one value, too" if values else "there is no value"
        yield Finding(where, message, f"-p {name}=A,B", key=True, option=f"{name}=...")
    for at, (text, first) in enumerate(_repeated(declared, values)):
        option = f"{name}={text}"
        if wrong := wrong_value(declared, text):
            hint = f"{wrong.hint}\na comma parts values; \\, is a comma within one"
            yield Finding(where, str(wrong), hint, key=True, option=option)
        elif first != at:
            message = f"{shown(text)} is the same as {shown(values[first])}, given before"
            yield Finding(where, message, "each value makes a job", key=True, option=option)


def _repeated(declared: Declared, values: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yield each value with the place of the first one that means the same."""
    seen: dict[str | int | float, int] = {}
    for at, text in enumerate(values):
        is_right = wrong_value(declared, text) is None
        yield text, seen.setdefault(meaning(declared, text), at) if is_right else at
