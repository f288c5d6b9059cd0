"""Walking folders that others are writing to: what is there now, within a bound, never raising.

Owns glob matching and the listing of a directory checkpoint's contents; judges nothing. What
vanishes while it is looked at was not there; what may not be read is noted. Invariant: the work is
bounded by `ENTRY_LIMIT` names, whatever the folder holds.
"""

import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import translate
from pathlib import Path, PurePosixPath
from typing import Final

from supervisor.checkpoint.names import is_ours, is_temporary

ENTRY_LIMIT: Final = 200_000
GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})
_WILD: Final = re.compile(r"[*?\[]")


@dataclass(slots=True)
class Walk:
    """One bounded look; `problems` are the folders that could not be read, with the reason.

    `every_name` lets wildcards match unfinished names and our own, too.
    """

    budget: int = ENTRY_LIMIT
    every_name: bool = False
    problems: list[tuple[Path, str]] = field(default_factory=list)

    def entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """List a folder in order of name; an absent one is empty."""
        try:
            with os.scandir(folder) as listing:
                found = []
                for entry in listing:
                    self.budget -= 1
                    if self.budget < 0:
                        self._exhausted(folder)
                        break
                    found.append(entry)
        except OSError as error:
            if error.errno not in GONE:
                self.problems.append((folder, f"cannot be listed: {error.strerror}"))
            return []
        return sorted(found, key=lambda entry: entry.name)

    def glob(self, root: Path, pattern: str) -> Iterator[Path]:
        """Give what matches and is not unfinished; a pattern ending in `/` means folders only."""
        parts: list[str] = []
        for part in PurePosixPath(pattern).parts:
            if part != "**" or parts[-1:] != ["**"]:
                parts.append(part)
        if parts[-1] == "**":
            parts.append("*")
        for path in self._match(root, parts):
            if not pattern.endswith("/") or path.is_dir():
                yield path

    def _match(self, folder: Path, parts: list[str]) -> Iterator[Path]:
        part, rest = parts[0], parts[1:]
        if part == "**":
            yield from self._match(folder, rest)
            for entry in self.entries(folder):
                if not self._never(entry.name) and _is_folder(entry):
                    yield from self._match(folder / entry.name, parts)
            return
        if not _WILD.search(part):
            found = folder / part
            if os.path.lexists(found):
                yield from self._match(found, rest) if rest else (found,)
            return
        wanted = re.compile(translate(part))
        for entry in self.entries(folder):
            if entry.name.startswith(".") and not part.startswith("."):
                continue
            if wanted.match(entry.name) and not self._never(entry.name, part):
                found = folder / entry.name
                yield from self._match(found, rest) if rest else (found,)

    def contents(self, folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Give every file below `folder` with its relative path; links to folders count as files.

        A link to a folder is given but not followed: it may lead anywhere, and round in circles.
        """
        pending = [(folder, "")]
        while pending:
            where, prefix = pending.pop()
            for entry in self.entries(where):
                relative = prefix + entry.name
                if _is_folder(entry):
                    pending.append((where / entry.name, relative + "/"))
                else:
                    yield relative, entry

    def _never(self, name: str, part: str = "*") -> bool:
        if self.every_name:
            return name.startswith(".") and part == "*"
        if part.startswith("."):  # the pattern asks for hidden names: hidden is not unfinished
            name = name.lstrip(".")
        return is_ours(name) or is_temporary(name)

    def _exhausted(self, folder: Path) -> None:
        note = f"more than {ENTRY_LIMIT} names to look at; the rest was not looked at"
        if not any(text == note for _, text in self.problems):
            self.problems.append((folder, note))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False
