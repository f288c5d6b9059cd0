"""Puts the values of params where a job file says `${name}`.

Owns that notation: `$${` is a literal `${`, an undeclared name is an error.
Invariant: one pass; what a param holds is never read as `${...}` again.
"""

import re
from dataclasses import dataclass, replace

from supervisor.spec.nodes import Filled, FilledValue, Node, Scalar, Sequence, Table
from supervisor.spec.params import Params
from supervisor.spec.placeholders import protect
from supervisor.spec.places import SourceMap, Span, Where, matches
from supervisor.spec.problems import Finding, closest, shown

_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}$]*)\}|\$\{")
_LONGEST_TEXT = 128 * 1024  # MAX_ARG_STRLEN of Linux
_NOT_FILLED = ("name", "params", "array")
_BRACES_MEAN_SOMETHING = ("resume.argv.*", "resume.env.*")


@dataclass(frozen=True, slots=True)
class _Filling:
    """What one pass of substitution needs and collects."""

    params: Params
    source: SourceMap


def substitute(root: Table, params: Params, source: SourceMap) -> Table:
    """Return the tree with every `${name}` replaced; findings are added to `params`."""
    filling = _Filling(params, source)
    pairs = tuple(
        (key, value if key.text in _NOT_FILLED else _filled(value, (key.text,), filling))
        for key, value in root.pairs
    )
    return replace(root, pairs=pairs)


def _filled(node: Node, where: Where, filling: _Filling) -> Node:
    if isinstance(node, Table):
        pairs = ((key, _filled(value, (*where, key.text), filling)) for key, value in node.pairs)
        return replace(node, pairs=tuple(pairs))
    if isinstance(node, Sequence):
        items = (_filled(item, (*where, at), filling) for at, item in enumerate(node.items))
        return replace(node, items=tuple(items))
    if not isinstance(node.value, str) or "${" not in node.text:
        return node
    text = _fill_text(node, where, filling)
    alone = _REFERENCE.fullmatch(node.text)
    is_value = alone is not None and alone[1] in filling.params.typed
    return replace(node, text=text, value=FilledValue(text) if is_value else Filled(text))


def _fill_text(node: Scalar, where: Where, filling: _Filling) -> str:
    keep_braces = any(matches(pattern, where) for pattern in _BRACES_MEAN_SOMETHING)

    values = filling.params.values
    grown = sum(len(values.get(match[1] or "", "")) for match in _REFERENCE.finditer(node.text))
    if grown > _LONGEST_TEXT:
        message = f"the params in this text are {grown} characters together"
        hint = f"Linux hands no argument of more than {_LONGEST_TEXT} bytes to a program"
        filling.params.findings.append(Finding(where, message, hint))
        return node.text
    told: set[str] = set()  # a name is wrong once, however often a text repeats it

    def replacement(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            if match[0] == "$${":
                return "${"
            message, hint = "'${' is never closed", "write ${name}, or $${ for the characters"
        elif name in values:
            return protect(values[name]) if keep_braces else values[name]
        elif name in filling.params.names:
            return match[0]  # what is wrong with it is said where it is declared
        else:
            message, hint = f"no param is called {shown(name)}", _undeclared(name, filling.params)
        if match[0] not in told:
            told.add(match[0])
            span = _token_span(node.span, match[0], filling.source)
            filling.params.findings.append(Finding(where, message, hint, span=span))
        return match[0]

    return _REFERENCE.sub(replacement, node.text)


def _undeclared(name: str, params: Params) -> str:
    near = closest(name, params.names)
    if near:
        return f"did you mean ${{{near}}}?"
    if name.isupper():
        return f"environment variables are not read here; write $${{{name}}} for these characters"
    return f"declare it: params: {{{name}: ...}}; or write $${{{name}}} for these characters"


def _token_span(start: Span, token: str, source: SourceMap) -> Span:
    """Find a token from where its text begins; the text itself where escapes hide the token."""
    for number in range(start.line, len(source.lines) + 1):
        begin = start.column - 1 if number == start.line else 0
        at = source.lines[number - 1].find(token, begin)
        if at >= 0:
            return Span(number, at + 1, len(token))
    return start
