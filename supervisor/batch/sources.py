"""Where the items of a batch job come from: a function, a file of lines, JSON lines, a pattern.

Owns the meaning of the text `items`; never calls a user's function (planner.py says how a child
does). Invariant: items are given one by one, as canonical JSON texts, and the same source gives the
same texts in the same order.
"""

import json
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from supervisor.batch.pattern import files_matching
from workers.protocol import canonical

ITEM_LIMIT: Final = 1 << 20
"""Characters of one item. Longer ones belong in a file, which the item then names."""

_NAME: Final = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_ENTRY: Final = re.compile(rf"{_NAME}:{_NAME}")
_JSON: Final = frozenset({".jsonl", ".ndjson"})
_MAGIC: Final = re.compile(r"[*?\[]")
_PEEK_BYTES: Final = 4096
_WIDE: Final = (b"\xff\xfe", b"\xfe\xff")  # UTF-16


class SourceProblem(Exception):
    """The items cannot be listed; the message says where, why and what to do."""


@dataclass(frozen=True, slots=True)
class CallableSource:
    """A function that lists the items; it runs in a child, see planner.py."""

    entry: str


@dataclass(frozen=True, slots=True)
class LinesSource:
    """A file with one item a line, each a text; blank lines are skipped."""

    file: Path

    def read(self) -> Iterator[str]:
        """Give the items. Raises SourceProblem."""
        with _opened(self.file, "surrogateescape") as lines:
            for _, line in _numbered(lines, self.file):
                yield canonical(line)


@dataclass(frozen=True, slots=True)
class JsonLinesSource:
    """A file with one item a line, each any JSON value; blank lines are skipped."""

    file: Path

    def read(self) -> Iterator[str]:
        """Give the items. Raises SourceProblem."""
        with _opened(self.file, "strict") as lines:
            for number, line in _numbered(lines, self.file):
                yield self._item(number, line)

    def _item(self, number: int, line: str) -> str:
        where = f"{self.file}:{number}"
        try:
            return canonical(json.loads(line, parse_constant=_no_constant))
        except json.JSONDecodeError as error:
            raise SourceProblem(
                f"{where}:{error.colno}: this is no JSON ({error.msg}): {_shown(line)}\n"
                "Each line is one value; for lines that are plain text, give the file another "
                "name than .jsonl"
            ) from error
        except (ValueError, RecursionError) as error:
            raise SourceProblem(f"{where}: {error}: {_shown(line)}") from error


@dataclass(frozen=True, slots=True)
class PatternSource:
    """Files that match a pattern. Their paths are the items, relative where the pattern is."""

    pattern: str
    cwd: Path
    without: Path | None = None

    def read(self) -> Iterator[str]:
        """Give the items. Raises SourceProblem, also where nothing matches."""
        found = False
        try:
            for path in files_matching(self.pattern, self.cwd, self.without):
                found = True
                yield canonical(path)
        except OSError as error:
            raise SourceProblem(
                f"{error.filename} cannot be listed: {error.strerror}. All that `items` matches "
                "must be readable, for otherwise some would be left out unseen."
            ) from error
        if not found:
            raise SourceProblem(_nothing(self.pattern, self.cwd))


@dataclass(frozen=True, slots=True)
class OneSource:
    """A single file, which is itself the one item."""

    path: str

    def read(self) -> Iterator[str]:
        """Give the item."""
        yield canonical(self.path)


Source = CallableSource | LinesSource | JsonLinesSource | PatternSource | OneSource


def source_of(text: str, cwd: Path, without: Path | None = None) -> Source:
    """Tell what the text `items` of a job means, from the folder that it works in.

    `pkg:name` is a function; an existing file is a list of items, unless it is no text: then the
    file itself is the item; all else is a pattern. Files in the folder `without`, where the job
    itself writes, never match a pattern.

    Raises:
        SourceProblem: what is there cannot be read, or there is nothing.
    """
    if _ENTRY.fullmatch(text):
        return CallableSource(text)
    file = cwd / text
    kind = _kind(file)
    if kind == stat.S_IFREG:
        return _file_source(text, file)
    if kind == stat.S_IFDIR:
        pattern = str(Path(text, "*"))
        raise SourceProblem(f"{file} is a folder. For the files in it, write items: {pattern!r}")
    if kind:
        raise SourceProblem(
            f"{file} is no regular file: it could not be read again when the job goes on. "
            "Write its content to a file first."
        )
    if not _MAGIC.search(text):
        raise SourceProblem(f"there is no file {file}, and {text!r} is no pattern")
    return PatternSource(text, cwd, without)


def _kind(file: Path) -> int:
    try:
        return stat.S_IFMT(file.stat().st_mode)
    except PermissionError as error:
        raise SourceProblem(f"{file} cannot be read: {error.strerror}") from error
    except (OSError, ValueError):
        return 0  # there is nothing of that name


def _file_source(text: str, file: Path) -> Source:
    try:
        with file.open("rb") as content:
            head = content.read(_PEEK_BYTES)
    except OSError as error:
        raise SourceProblem(f"{file} cannot be read: {error.strerror}") from error
    if head.startswith(_WIDE):
        raise SourceProblem(f"{file} is UTF-16 text; save it as UTF-8")
    if file.suffix.lower() in _JSON:
        return JsonLinesSource(file)
    return OneSource(text) if b"\0" in head else LinesSource(file)


def _opened(file: Path, errors: str) -> IO[str]:
    try:
        return file.open(encoding="utf-8-sig", errors=errors, newline="\n")
    except OSError as error:
        raise SourceProblem(f"{file} cannot be read: {error.strerror}") from error


def _numbered(lines: IO[str], file: Path) -> Iterator[tuple[int, str]]:
    """Give the lines that are not blank, without their ends, counted from 1."""
    number = 1
    try:
        while line := lines.readline(ITEM_LIMIT + 2):
            text = line.removesuffix("\n").removesuffix("\r")
            if len(text) > ITEM_LIMIT:
                raise SourceProblem(
                    f"{file}:{number}: a line of more than {ITEM_LIMIT} characters is no item. "
                    "Put it into a file of its own and name that."
                )
            if text.strip():
                yield number, text
            number += 1
    except UnicodeDecodeError as error:
        raise SourceProblem(f"{file}: near line {number}: this is no UTF-8 ({error})") from error
    except OSError as error:
        raise SourceProblem(f"{file} cannot be read: {error.strerror}") from error


def _no_constant(name: str) -> Any:  # noqa: ANN401 - never returns
    raise ValueError(f"{name} is no JSON")


def _shown(line: str, limit: int = 60) -> str:
    return repr(line if len(line) <= limit else line[:limit] + "…")


def _nothing(pattern: str, cwd: Path) -> str:
    folder = Path(pattern)
    while _MAGIC.search(str(folder)):
        folder = folder.parent
    there = "" if (cwd / folder).is_dir() else f": there is no folder {cwd / folder}"
    return f"no file matches {pattern!r} in {cwd}{there}"
