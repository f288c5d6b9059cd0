"""YAML text to a tree of nodes with positions.

Owns everything about YAML itself: duplicate keys, anchors, merge keys, tags, limits; knows no field
of a job. Never builds an object of a type the file names.
Invariant: it comes back with a tree and findings, or with findings alone; it raises nothing,
whatever the text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from supervisor.spec.nodes import (
    MAX_DEPTH,
    MAX_VALUES,
    Node,
    Scalar,
    Sequence,
    Table,
    plain_value,
    walk,
)
from supervisor.spec.places import SourceMap, Span
from supervisor.spec.problems import Finding, closest, shown
from supervisor.spec.syntax import explain_syntax

_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # the line breaks the parser counts
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")  # can be no part of an argument or a file name
_MERGE = "<<"


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: its tree (None when there is none), its positions, what is wrong so far."""

    root: Table | None
    source: SourceMap
    findings: tuple[Finding, ...]


class _TooMuch(Exception):
    """The text goes beyond a limit; carries the finding that says so."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


def parse(text: str, file: str) -> Document:
    """Parse YAML text of at most MAX_VALUES values and MAX_DEPTH levels."""
    lines = tuple(_BREAK.split(text))
    composer = _Composer()
    root: Node | None = None
    try:
        root = composer.document(YAML(typ="safe", pure=True).parse(text))
    except YAMLError as error:
        composer.findings.append(explain_syntax(error, text, lines))
    except _TooMuch as limit:
        composer.findings.append(limit.finding)
    except (
        ValueError,
        IndexError,
        AssertionError,
        AttributeError,
        TypeError,
        KeyError,
        StopIteration,
    ):
        # The parser trips over some malformed text instead of reporting it.
        composer.findings.append(Finding((), "this is not YAML", "check the file", span=Span(1, 1)))
    else:
        composer.findings.extend(_top(root))
    table = root if isinstance(root, Table) else None
    return Document(table, _source(table, lines, file), tuple(composer.findings))


def _top(root: Node | None) -> list[Finding]:
    if isinstance(root, Table):
        return []
    what = "a list" if isinstance(root, Sequence) else "a single value"
    wanted = "a job is a mapping, such as\nname: digits\ncommand: [python, train.py]"
    if root is None or (isinstance(root, Scalar) and root.value is None):
        return [Finding((), "there is nothing in this file", wanted)]
    return [Finding((), f"the file holds {what} instead of a job", wanted, span=root.span)]


def _source(root: Table | None, lines: tuple[str, ...], file: str) -> SourceMap:
    if root is None:
        return SourceMap(file, lines)
    places = list(walk(root))
    keys = {where: key for where, key, _ in places if key is not None}
    values = {where: node.span for where, _, node in places}
    return SourceMap(file, lines, keys, {(): Span(1, 1), **values})


@dataclass(slots=True)
class _Composer:
    """Builds the tree from the parser's events."""

    findings: list[Finding] = field(default_factory=list)
    anchors: dict[str, Node | None] = field(default_factory=dict)
    count: int = 0

    def document(self, events: Iterator[Event]) -> Node | None:
        root: Node | None = None
        documents = 0
        for event in events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    message = "a second document begins here; a file holds one job"
                    hint = "put each job into a file of its own"
                    raise _TooMuch(Finding((), message, hint, span=_span(event)))
                root = self.node(next(events), events, 1)
        return root

    def node(self, event: Event, events: Iterator[Event], level: int) -> Node:
        self.count += 1
        self.limit(self.count, level, _span(event))
        if isinstance(event, AliasEvent):
            return self.alias(event, level)
        anchor = getattr(event, "anchor", None)
        if anchor:
            self.anchors[anchor] = None  # named, not yet complete: an alias to it is a cycle
        self.refuse_tag(event)
        made: Node
        if isinstance(event, MappingStartEvent):
            made = self.table(event, events, level)
        elif isinstance(event, SequenceStartEvent):
            made = self.sequence(event, events, level)
        else:
            made = self.scalar(event)
        if anchor:
            self.anchors[anchor] = made
        return made

    def limit(self, weight: int, depth: int, span: Span) -> None:
        if depth > MAX_DEPTH:
            message = f"nested more than {MAX_DEPTH} levels deep"
            raise _TooMuch(Finding((), message, "a job needs four", span=span))
        if weight > MAX_VALUES:
            message = f"more than {MAX_VALUES} values, counting what aliases repeat"
            raise _TooMuch(Finding((), message, "a job needs a few dozen", span=span))

    def alias(self, event: AliasEvent, level: int) -> Node:
        span, name = _span(event), str(event.anchor)
        target = self.anchors.get(name)
        if target is None:
            message = f"*{name} names {'what contains it' if name in self.anchors else 'nothing'}"
            near = closest(name, self.anchors)
            hint = f"did you mean *{near}?" if near and near != name else f"an anchor is &{name}"
            self.findings.append(Finding((), message, hint, span=span))
            return Scalar(span, f"*{name}", None)
        self.count += target.weight
        self.limit(self.count, level + target.depth - 1, span)
        return replace(target, span=span)

    def refuse_tag(self, event: Event) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None:
            message = f"the tag {shown(str(tag))} has no meaning here"
            self.findings.append(Finding((), message, "remove it", span=_span(event)))

    def scalar(self, event: Event) -> Scalar:
        text = _joined(event.value) if isinstance(event, ScalarEvent) else ""
        is_plain = isinstance(event, ScalarEvent) and not event.style
        span = _span(event)
        if _NOT_TEXT.search(text):
            message = "a NUL or half a surrogate pair cannot be part of a text"
            self.findings.append(Finding((), message, "remove it", span=span))
            text = _NOT_TEXT.sub("\ufffd", text)  # what follows may print it
        return Scalar(span, text, plain_value(text) if is_plain else text)

    def sequence(self, start: Event, events: Iterator[Event], level: int) -> Sequence:
        items: list[Node] = []
        while not isinstance(event := next(events), SequenceEndEvent):
            items.append(self.node(event, events, level + 1))
        weight = 1 + sum(item.weight for item in items)
        depth = 1 + max((item.depth for item in items), default=0)
        return Sequence(_span(start), tuple(items), weight, depth)

    def table(self, start: Event, events: Iterator[Event], level: int) -> Table:
        own: dict[str, tuple[Scalar, Node]] = {}
        merged: dict[str, tuple[Scalar, Node]] = {}
        while not isinstance(event := next(events), MappingEndEvent):
            key = self.node(event, events, level + 1)
            value = self.node(next(events), events, level + 1)
            if isinstance(value, Scalar) and not value.text and isinstance(key, Scalar):
                # `key:` with nothing after it is reported where the key stands.
                value = replace(value, span=key.span) if value.value is None else value
            if isinstance(key, Scalar) and key.text == _MERGE:
                merged = {**self.merge(value), **merged}
            elif isinstance(key, Scalar) and isinstance(key.value, str):
                self.add(own, key, value)
            else:
                what = shown(key.text) if isinstance(key, Scalar) else "a list or a mapping"
                hint = f'write "{key.text}"' if isinstance(key, Scalar) and key.text else ""
                message = f"{what} cannot be a key: keys are text"
                self.findings.append(Finding((), message, hint, span=key.span))
        pairs = tuple({**merged, **own}.values())
        weight = 1 + sum(1 + value.weight for _, value in pairs)
        depth = 1 + max((value.depth for _, value in pairs), default=0)
        return Table(_span(start), pairs, weight, depth)

    def add(self, pairs: dict[str, tuple[Scalar, Node]], key: Scalar, value: Node) -> None:
        if key.text in pairs:
            first = pairs[key.text][0].span.line
            message = f"{shown(key.text)} is given twice: on line {first} and on line "
            hint = "keep one of them"
            self.findings.append(Finding((), f"{message}{key.span.line}", hint, span=key.span))
        else:
            pairs[key.text] = (key, value)

    def merge(self, value: Node) -> dict[str, tuple[Scalar, Node]]:
        sources = value.items if isinstance(value, Sequence) else (value,)
        merged: dict[str, tuple[Scalar, Node]] = {}
        for source in sources:
            if isinstance(source, Table):
                merged = {**{key.text: (key, node) for key, node in source.pairs}, **merged}
            else:
                message = "<< merges a mapping, and this is none"
                self.findings.append(Finding((), message, "write <<: *anchor", span=source.span))
        return merged


def _joined(text: str) -> str:
    """Join surrogate pairs: JSON, which is YAML, writes what is beyond U+FFFF as two escapes."""
    if text.isascii() or not _NOT_TEXT.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _span(event: Event) -> Span:
    start, end = event.start_mark, event.end_mark
    one_line = end.line == start.line
    # What goes on over several lines is underlined to the end of its first one.
    width = end.column - start.column if one_line else 1_000_000
    return Span(start.line + 1, start.column + 1, max(1, width))
