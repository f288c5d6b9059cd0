"""The tree of a YAML file: values with the text and the position they were written with.

Owns what a plain word means (YAML 1.2 core: `no`, `on` and `12:30` are words); reads no file.
Invariant: a tree is finite and at most MAX_DEPTH deep, so whoever walks it may recurse.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from supervisor.spec.places import Span, Where, matches

MAX_DEPTH = 32
MAX_VALUES = 10_000

# Fields that are text whatever it looks like: `--epochs, 30` reaches the program as it was written.
TEXT_AT = (
    *("name", "command.*", "env.*", "resume.argv.*", "resume.env.*"),
    *("key", "group", "after.*", "env_keep.*", "array.*.*"),
)

Plain = str | int | float | bool | None

_WORDS: dict[str, Plain] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_LONGEST_NUMBER = 400


class Filled(str):
    """Text that came from a `${param}`: a field that wants a number may read it as one."""

    __slots__ = ()


class FilledValue(Filled):
    """Text that is one `${param}` and nothing else, whose type is a number or a flag."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value: what it means, and the text it was written with (quotes and escapes undone)."""

    span: Span
    text: str
    value: Plain
    weight: int = 1
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    span: Span
    items: "tuple[Node, ...]"
    weight: int
    depth: int


@dataclass(frozen=True, slots=True)
class Table:
    """A mapping: its pairs in the order of the file; each key once."""

    span: Span
    pairs: "tuple[tuple[Scalar, Node], ...]"
    weight: int
    depth: int

    def get(self, key: str) -> "Node | None":
        """Return the value of a key."""
        return next((value for name, value in self.pairs if name.text == key), None)


Node = Scalar | Sequence | Table


def plain_value(text: str) -> Plain:
    """Return what an unquoted word means: null, true, a number, or itself."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > _LONGEST_NUMBER:
        return text
    if _INT.fullmatch(text):
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text, base)
    return float(text) if _FLOAT.fullmatch(text) else text


def to_data(table: Table, where: Where = ()) -> dict[str, object]:
    """Return the tree as dicts, lists and plain values; as written text in the TEXT_AT fields."""
    return {key.text: _to_data(value, (*where, key.text)) for key, value in table.pairs}


def _to_data(node: Node, where: Where) -> object:
    if isinstance(node, Table):
        return to_data(node, where)
    if isinstance(node, Sequence):
        return [_to_data(item, (*where, at)) for at, item in enumerate(node.items)]
    as_text = node.value is not None and any(matches(pattern, where) for pattern in TEXT_AT)
    return node.text if as_text else node.value


def walk(node: Node, where: Where = ()) -> Iterator[tuple[Where, Span | None, Node]]:
    """Yield every value below a node: its place, the span of its key if it has one, the node."""
    if isinstance(node, Table):
        for key, value in node.pairs:
            here = (*where, key.text)
            yield here, key.span, value
            yield from walk(value, here)
    elif isinstance(node, Sequence):
        for at, item in enumerate(node.items):
            yield (*where, at), None, item
            yield from walk(item, (*where, at))
