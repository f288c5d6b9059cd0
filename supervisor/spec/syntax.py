"""What the YAML parser says, in words for the author of a job file.

Owns the wording of syntax errors; parses nothing itself.
"""

from ruamel.yaml.error import MarkedYAMLError, StringMark, YAMLError
from ruamel.yaml.reader import ReaderError

from supervisor.spec.places import Span
from supervisor.spec.problems import Finding, shown

_QUOTE = "put the value in quotes"

# (words in the parser's message, what is wrong, what would be right); the first match counts.
_WORDING = (
    (r"found character '\t'", "a tab where YAML wants spaces", "indent with spaces"),
    (
        "that cannot start any token",
        "a value cannot begin with this character",
        _QUOTE,
    ),
    (
        "mapping values are not allowed here",
        "a second ': ' on this line, or a line indented deeper than the one above",
        f"{_QUOTE} if the ': ' belongs to it; else align the line with its neighbours",
    ),
    (
        "could not find expected ':'",
        "this line is neither `key: value` nor the end of what was opened above",
        "write a colon and a space after a key, and close quotes and brackets",
    ),
    (
        "expected <block end>",
        "this line does not line up with the ones above it",
        "entries of one mapping or list begin at the same column",
    ),
    ("found unexpected end of stream", "a quote is opened here and never closed", "close it"),
    ("found unknown escape character", "an unknown escape in double quotes", "use single quotes"),
    (
        "expected ',' or",
        "the list or mapping in brackets is not closed, or a comma is missing",
        "check commas and brackets",
    ),
    ("found incompatible YAML document", "this YAML version is unknown", "remove the %YAML line"),
)
# Errors that show at the end of what they spoil, and are told where it begins.
_OPENING = ("found unexpected end of stream", "could not find expected ':'")


def explain_syntax(error: YAMLError, text: str, lines: tuple[str, ...]) -> Finding:
    """Turn the parser's error into a finding with a position."""
    if isinstance(error, ReaderError):
        before = text[: error.position]
        line = before.count("\n") + 1
        column = len(before) - before.rfind("\n")
        return Finding(
            (),
            f"character {shown_character(error.character)} is not allowed in YAML",
            'inside double quotes it can be written as an escape, such as "\\x1b"',
            span=Span(line, column),
        )
    if not isinstance(error, MarkedYAMLError):
        return Finding((), "this is not YAML", "check the file in an editor", span=Span(1, 1))
    said = error.problem or error.context or ""
    mark = error.problem_mark or error.context_mark
    at_end = mark is not None and not "".join(lines[mark.line :]).strip()
    if error.context_mark and (at_end or any(words in said for words in _OPENING)):
        mark = error.context_mark
    return _worded(said, _span(mark, lines), lines)


def shown_character(character: object) -> str:
    """Name a character by its code point, which prints everywhere."""
    code = character if isinstance(character, int) else ord(str(character)[:1] or " ")
    return f"U+{code:04X}"


def _worded(said: str, span: Span, lines: tuple[str, ...]) -> Finding:
    here = lines[span.line - 1] if span.line <= len(lines) else ""
    if "expected ',' or" in said and "${" in here:
        message = "${...} inside brackets needs quotes, since { and } mean something to YAML there"
        return Finding((), message, 'write "${name}"', span=span)
    for words, message, hint in _WORDING:
        if words in said:
            return Finding((), message, hint, span=span)
    return Finding((), f"not YAML: {shown(said)}", _QUOTE, span=span)


def _span(mark: StringMark | None, lines: tuple[str, ...]) -> Span:
    """Position of a mark; an error at the very end is shown at the end of the last line."""
    if mark is None:
        return Span(1, 1)
    if mark.line >= len(lines):
        return Span(max(1, len(lines)), len(lines[-1]) + 1 if lines else 1)
    return Span(mark.line + 1, mark.column + 1)
