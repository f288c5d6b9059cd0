"""Files of SQLite: their SQL, whole transactions, and what an error of SQLite says of the file.

Owns how a package's SQL is found and run; knows no table, and words nothing for people. Invariant:
a transaction that raises leaves the file as it was.
"""

import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

# SQLite's primary result codes, https://sqlite.org/rescode.html. ERROR is what a file says that
# lacks our tables. The others (a constraint, a misuse) are faults of this program, not of a file.
_PASSING = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOMEM,
}
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
_PRIMARY = 0xFF  # an extended code carries the primary one in its low byte


Said = Callable[[sqlite3.Error], Exception]


class Trouble(Enum):
    """What an error says of the file that it is about."""

    FULL = "its disk is full"
    PASSING = "it cannot be used for now"
    DAMAGED = "it is no file of ours, or not any more"
    OURS = "nothing: the program is wrong"


def trouble(error: sqlite3.Error) -> Trouble:
    """What is wrong, by the code of the error and not by its words."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # Python's own: a text in the file that is none, or a misuse
        return Trouble.DAMAGED if type(error) is sqlite3.OperationalError else Trouble.OURS
    code &= _PRIMARY
    if code == sqlite3.SQLITE_FULL:
        return Trouble.FULL
    if code in _PASSING:
        return Trouble.PASSING
    return Trouble.DAMAGED if code in _DAMAGE else Trouble.OURS


class Scripts:
    """The SQL in a folder: `schema.sql` by version, statements by name. Read once, when wanted."""

    def __init__(self, folder: Path, *files: str) -> None:
        self._folder = folder
        self._files = files

    @cached_property
    def named(self) -> dict[str, str]:
        """Every statement by its name."""
        parts = (part for file in self._files for part in self._parts(file, "name"))
        return {name: body.strip() for name, body in parts}

    def lacking(self, version: int) -> list[str]:
        """Statements, in order, that bring a file of this version up to date."""
        found, current = [], ""
        parts = self._parts("schema.sql", "version")
        for line in "".join(part for added, part in parts if int(added) > version).splitlines():
            current += line + "\n"
            if sqlite3.complete_statement(current):
                found.append(current)
                current = ""
        return found

    def _parts(self, file: str, mark: str) -> list[tuple[str, str]]:
        text = (self._folder / file).read_text(encoding="utf-8")
        parts = re.split(rf"^-- {mark}: (\w+)\n", text, flags=re.MULTILINE)[1:]
        return list(zip(parts[::2], parts[1::2], strict=True))


class Store:
    """An open connection, in SQLite's own autocommit mode, and the statements that it is asked.

    `said` words errors for people, as in `worded`.
    """

    def __init__(self, connection: sqlite3.Connection, scripts: Scripts, said: Said) -> None:
        self._connection = connection
        self._scripts = scripts
        self._said = said

    def run(self, statement: str, parameters: Mapping[str, Any]) -> sqlite3.Cursor:
        """Run a named statement once; errors come as they are, for whoever has begun to say."""
        return self._connection.execute(self._scripts.named[statement], parameters)

    def run_many(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> int:
        """Run a named statement for each row, inside a transaction; how many rows it changed."""
        return self._connection.executemany(self._scripts.named[statement], rows).rowcount

    def rows(self, statement: str, parameters: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        """Give the rows of a named query one by one, as tuples; they are never all in memory."""
        with self.worded():
            cursor = self._connection.cursor()
            cursor.row_factory = None
            yield from cursor.execute(self._scripts.named[statement], parameters)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block or nothing of it."""
        with self.worded():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def worded(self) -> AbstractContextManager[None]:
        """Say SQLite's errors in words for people."""
        return worded(self._said)


@contextmanager
def worded(said: Said) -> Iterator[None]:
    """Say SQLite's errors as `said` does; those that it returns as they are, are raised so."""
    try:
        yield
    except sqlite3.Error as error:
        words = said(error)
        if words is error:
            raise
        raise words from error
