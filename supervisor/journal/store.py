"""The connection as the modules of the journal share it: named statements, whole transactions.

Owns nothing but the wrapping of a connection; decides nothing about what is stored. Invariant: a
block that raises leaves the file as it was, and SQLite's errors come out in words for people.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from supervisor.journal.errors import translate
from supervisor.journal.statements import statements


class Store:
    """One open connection."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def run(self, statement: str, parameters: Mapping[str, Any]) -> sqlite3.Cursor:
        """Run a named statement once, inside a transaction of the caller's."""
        return self._connection.execute(statements()[statement], parameters)

    def run_many(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> int:
        """Run a named statement for each row, inside a transaction; how many rows it changed."""
        return self._connection.executemany(statements()[statement], rows).rowcount

    def rows(self, statement: str, parameters: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        """Give the rows of a named query one by one, as tuples; they are never all in memory."""
        with translated(self._path):
            cursor = self._connection.cursor()
            cursor.row_factory = None
            yield from cursor.execute(statements()[statement], parameters)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block or nothing of it."""
        with translated(self._path):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Say SQLite's errors in words for people, naming the file."""
    try:
        yield
    except sqlite3.Error as error:
        said = translate(error, path)
        if said is error:
            raise
        raise said from error
