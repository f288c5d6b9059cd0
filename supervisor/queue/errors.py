"""What can be wrong with the queue's file, in words for people.

Owns the translation of SQLite's errors. Nothing is ever repaired or deleted here.
"""

import sqlite3
from pathlib import Path


class QueueError(Exception):
    """The queue could not be used; the message says where, why and what to do."""


class QueueUnavailable(QueueError):
    """For now: the disk is full, read-only or failing, or another process holds the file.

    `full` says that it is the room that is missing.
    """

    full = False


class QueueUnusable(QueueError):
    """For good: the file is corrupt, not a queue, or from a newer version."""


class NotStorable(QueueError):
    """A value that no database can hold: half a character, a number beyond 64 bits."""


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


def translate(error: sqlite3.Error, path: Path) -> Exception:
    """The same error, saying which file it is about and what a person can do.

    An error that is the program's own fault is returned as it is.
    """
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # Python's own: a text in the file that is none, or a misuse
        return damaged(path, error) if type(error) is sqlite3.OperationalError else error
    code &= _PRIMARY
    if code in _PASSING:
        unavailable = QueueUnavailable(
            f"the queue {path} cannot be used: {error}. Check free space and permissions of "
            f"{path.parent}, or name another folder with --state-dir. Nothing was lost."
        )
        unavailable.full = code == sqlite3.SQLITE_FULL
        return unavailable
    return damaged(path, error) if code in _DAMAGE else error


def damaged(path: Path, why: object) -> QueueUnusable:
    """What to do about a file that cannot be understood. Its log goes with it."""
    aside = path.parent / "queue.damaged"
    return QueueUnusable(
        f"the queue {path} is damaged: {why}. Nothing was changed. Move it away "
        f"(mkdir {aside} && mv {path}* {aside}/) and start the daemon again: what runs goes on, "
        "what ran is in the journal; jobs that waited must be submitted again."
    )
