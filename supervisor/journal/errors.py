"""What can be wrong with a journal, in words for people.

Owns the translation of SQLite's errors. Nothing is ever repaired or deleted here.
"""

import sqlite3
from pathlib import Path


class JournalError(Exception):
    """The journal could not be used; the message says where, why and what to do."""


class JournalUnavailable(JournalError):
    """For now: the disk is full, read-only or failing, or another process holds the file.

    `full` says that it is the room that is missing.
    """

    full = False


class JournalUnusable(JournalError):
    """For good: the file is corrupt, not a journal, or from a newer version."""


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
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & _PRIMARY
    if code in _PASSING:
        unavailable = JournalUnavailable(
            f"the journal {path} cannot be used: {error}. Check free space and permissions of "
            f"{path.parent}, or name another folder with --state-dir. Nothing was lost."
        )
        unavailable.full = code == sqlite3.SQLITE_FULL
        return unavailable
    if code in _DAMAGE:
        return JournalUnusable(
            f"the journal {path} is damaged: {error}. Nothing was changed. Move it away "
            f"(mv {path} {path}.damaged) and run again: jobs then resume from the checkpoints on "
            "disk, without their history."
        )
    return error
