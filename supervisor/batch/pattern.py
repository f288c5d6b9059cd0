"""Files that match a pattern such as `photos/**/*.jpg`, in order, as they are found.

Owns the meaning of a pattern: `*`, `?`, `[...]` within a name, `**` for any folders, files only,
hidden ones only where the pattern itself begins with a dot. Never follows a link to a folder below
`**`, for such links may go round in circles. Invariant: folders are read one at a time and their
names are sorted outside of memory when there are very many, so a folder of millions costs little.
"""

import fnmatch
import heapq
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePath
from typing import IO, Final

RUN: Final = 50_000  # names that are sorted in memory
_MAGIC: Final = re.compile(r"[*?\[]")
_ANY_FOLDERS: Final = "**"
_END: Final = "\0"  # of a name in a temporary file: no name holds it

Wanted = Callable[["os.DirEntry[str]"], bool]


def files_matching(pattern: str, cwd: Path, without: Path | None = None) -> Iterator[str]:
    """Give the files that match, relative to `cwd` unless the pattern is absolute.

    In each folder they are sorted by name. The folder `without` is passed over.

    Raises:
        OSError: a folder cannot be read; its `filename` says which.
    """
    parts = PurePath(pattern).parts
    start = PurePath(parts[0]) if PurePath(pattern).is_absolute() else PurePath()
    rest = parts[1:] if start.parts else parts
    walk = _Walk(cwd, os.path.realpath(without) if without else None)
    for path in walk.below(start, rest):
        yield str(path)


class _Walk:
    def __init__(self, cwd: Path, without: str | None) -> None:
        self._cwd = cwd
        self._without = without

    def below(self, folder: PurePath, parts: tuple[str, ...]) -> Iterator[PurePath]:
        """Give the files below a folder that match the rest of the pattern."""
        if not parts or self._is_left_out(folder):
            return
        part, rest = parts[0], parts[1:]
        if part == _ANY_FOLDERS:
            yield from self._any_folders(folder, rest or ("*",))
        elif not rest:
            yield from self._files(folder, part)
        elif not _MAGIC.search(part):
            yield from self.below(folder / part, rest)
        else:
            for name in self._names(folder, part, _is_folder):
                yield from self.below(folder / name, rest)

    def _any_folders(self, folder: PurePath, rest: tuple[str, ...]) -> Iterator[PurePath]:
        while rest[0] == _ANY_FOLDERS and len(rest) > 1:
            rest = rest[1:]  # two of them mean what one does
        if rest[0] == _ANY_FOLDERS:
            rest = ("*",)
        yield from self.below(folder, rest)
        for name in self._names(folder, "*", _is_true_folder):
            if not self._is_left_out(folder / name):
                yield from self._any_folders(folder / name, rest)

    def _files(self, folder: PurePath, part: str) -> Iterator[PurePath]:
        if _MAGIC.search(part):
            for name in self._names(folder, part, _is_file):
                yield folder / name
        elif (self._cwd / folder / part).is_file():
            yield folder / part

    def _names(self, folder: PurePath, part: str, wanted: Wanted) -> Iterator[str]:
        fits = re.compile(fnmatch.translate(part)).match
        shows_hidden = part.startswith(".")
        try:
            entries = os.scandir(self._cwd / folder)
        except (FileNotFoundError, NotADirectoryError):
            return  # nothing of that name, or gone since it was seen
        with entries:
            yield from in_order(
                entry.name
                for entry in entries
                if fits(entry.name)
                and (shows_hidden or not entry.name.startswith("."))
                and wanted(entry)
            )

    def _is_left_out(self, folder: PurePath) -> bool:
        if self._without is None:
            return False
        return os.path.realpath(self._cwd / folder) == self._without


def _is_file(entry: "os.DirEntry[str]") -> bool:
    with suppress(OSError):  # a link in a circle
        return entry.is_file()
    return False


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    with suppress(OSError):
        return entry.is_dir()
    return False


def _is_true_folder(entry: "os.DirEntry[str]") -> bool:
    return entry.is_dir(follow_symlinks=False)


def in_order(names: Iterable[str], run: int = RUN) -> Iterator[str]:
    """Sort names; beyond `run` of them in temporary files, which are merged."""
    here: list[str] = []
    runs: list[IO[str]] = []
    try:
        for name in names:
            here.append(name)
            if len(here) == run:
                runs.append(_written(sorted(here)))
                here = []
        yield from heapq.merge(*map(_read, runs), sorted(here))
    finally:
        for file in runs:
            file.close()


def _written(names: list[str]) -> IO[str]:
    # Closed by `in_order`; names that are no UTF-8 keep their bytes.
    file = tempfile.TemporaryFile(  # noqa: SIM115 - see above
        "w+", encoding="utf-8", errors="surrogateescape", newline=""
    )
    file.writelines(name + _END for name in names)
    file.seek(0)
    return file


def _read(file: IO[str]) -> Iterator[str]:
    rest = ""
    while block := file.read(1 << 16):
        *names, rest = (rest + block).split(_END)
        yield from names
