"""What is wrong with a job file, and how it is told to a person.

Owns findings, problems and their rendering; never decides what is wrong.
Invariant: what is rendered is printable text, whatever bytes the file held.
"""

import difflib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from supervisor.spec.places import SourceMap, Span, Where

MAX_PROBLEMS = 100  # nobody reads more, and a hostile file has thousands
_EXCERPT_WIDTH = 96
_SHOWN_WIDTH = 60


class BadValue(ValueError):
    """A value that cannot be what its field wants: a sentence, and what would be right."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong at a place of the data, not yet at a line of the file.

    `key` puts the caret under the key instead of the value; `option` is the `-p` text at fault.
    """

    where: Where
    message: str
    hint: str = ""
    key: bool = False
    span: Span | None = None
    option: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong: where (line 0: the file as a whole), what, and what would be right.

    `excerpt` is the line, or the part of a long one that matters; `mark` (from 1) is the character
    of it that `column` of the file is.
    """

    file: str
    message: str
    hint: str = ""
    line: int = 0
    column: int = 0
    width: int = 1
    excerpt: str = ""
    mark: int = 1
    option: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        head = f"-p {self.option}" if self.option else place
        lines = [f"{printable(head)}: {printable(self.message)}"]
        if self.option and self.line:
            lines.append(f"  declared at {printable(place)}")
        gutter = ""
        if self.line:
            gutter = " " * len(str(self.line)) + " "
            indent = " " * _columns(self.excerpt[: self.mark - 1])
            caret = "^" * max(1, _columns(self.excerpt[self.mark - 1 :][: self.width]))
            lines += [f"  {self.line} | {self.excerpt}".rstrip(), f"  {gutter}| {indent}{caret}"]
        if self.hint:
            lines += [f"  {gutter}= {printable(part)}" for part in self.hint.split("\n")]
        return "\n".join(lines)


class SpecError(Exception):
    """A job file that cannot be accepted; carries every problem, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n\n".join(str(problem) for problem in self.problems)

    def as_json(self) -> list[dict[str, str | int]]:
        """Give the problems as data; `line` 0 means the file as a whole."""
        return [asdict(problem) for problem in self.problems]


def locate(findings: Iterable[Finding], source: SourceMap) -> tuple[Problem, ...]:
    """Turn findings into problems, sorted by position, at most one per place and message."""
    problems = dict.fromkeys(_at(finding, source) for finding in findings)
    ordered = sorted(problems, key=lambda found: (found.line, found.column, found.message))
    return at_most(ordered)


def at_most(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Cut problems of one file down to as many as anybody reads, and say how many there are."""
    ordered = list(problems)
    if len(ordered) > MAX_PROBLEMS:
        more = len(ordered) - MAX_PROBLEMS
        ordered[MAX_PROBLEMS:] = [Problem(ordered[0].file, f"and {more} more problems")]
    return tuple(ordered)


def shown(value: object) -> str:
    """Write a value of the file within a sentence."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    text = repr(str(value)) if isinstance(value, str) else _number(value)
    return text if len(text) <= _SHOWN_WIDTH else f"{text[: _SHOWN_WIDTH - 3]}..."


def _number(value: object) -> str:
    # Python refuses to print integers of thousands of digits, and nobody reads them.
    too_long = isinstance(value, int) and value.bit_length() > 8 * _SHOWN_WIDTH
    return "this number" if too_long else str(value)


def closest(word: object, known: Iterable[str]) -> str:
    """Return the known word that was probably meant, or an empty string."""
    spelled = {candidate.lower(): candidate for candidate in known}
    # Long words cost difflib quadratic time and are never a slip of a key of ours.
    given = str(word).lower()[:_SHOWN_WIDTH] if isinstance(word, str) else ""
    found = difflib.get_close_matches(given, list(spelled), n=1, cutoff=0.6)
    return spelled[found[0]] if found else ""


def suggest(word: object, known: Sequence[str]) -> str:
    """Say `did you mean` where that is clear, else list what is known."""
    near = closest(word, known)
    return f"did you mean '{near}'?" if near else f"known here: {', '.join(known)}"


def printable(text: str) -> str:
    """Replace what would move the cursor or colour the terminal, one character for one."""
    return "".join(
        " " if char == "\t" else char if char.isprintable() else "\ufffd" for char in text
    )


def _at(finding: Finding, source: SourceMap) -> Problem:
    span = finding.span or source.span(finding.where, key=finding.key)
    if span is None or (finding.option and not finding.where):
        return Problem(source.file, finding.message, finding.hint, option=finding.option)
    line = source.lines[span.line - 1] if 0 < span.line <= len(source.lines) else ""
    excerpt, mark = _window(line, span.column)
    width = max(1, min(span.width, len(line) - span.column + 1))
    return Problem(
        source.file,
        finding.message,
        finding.hint,
        line=span.line,
        column=span.column,
        width=width,
        excerpt=excerpt,
        mark=mark,
        option=finding.option,
    )


def _window(line: str, column: int) -> tuple[str, int]:
    """Cut the part around a column out of a long line; return it and where the column is in it."""
    start = 0
    if len(line) > _EXCERPT_WIDTH and column > _EXCERPT_WIDTH // 2:
        start = column - _EXCERPT_WIDTH // 2
    lead = "..." if start else ""
    tail = "..." if len(line) > start + _EXCERPT_WIDTH else ""
    text = printable(line[start : start + _EXCERPT_WIDTH])
    return f"{lead}{text}{tail}", column - start + len(lead)


def _columns(text: str) -> int:
    """Width on a terminal: East Asian wide characters take two columns, combining ones none."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )
