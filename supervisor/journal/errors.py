"""What can be wrong with a journal, in words for people.

Owns the translation of SQLite's errors. Nothing is ever repaired or deleted here.
"""

import sqlite3
from pathlib import Path


class JournalError(Exception):
    """The journal could not be used; the message says where, why and what to do."""


class JournalUnavailable(JournalError):
    """For now: the disk is full, read-only or failing, or another process holds the file."""


class JournalUnusable(JournalError):
    """For good: the file is corrupt, not a journal, or from a newer version."""


# Texts of SQLite's result codes (sqlite3ErrStr): FULL, READONLY, IOERR, BUSY, CANTOPEN, PERM.
_PASSING = ("full", "readonly", "disk i/o", "locked", "unable to open", "access permission")


def translate(error: sqlite3.Error, path: Path) -> JournalError:
    """The same error, saying which file it is about and what a person can do."""
    text = str(error)
    if any(sign in text.lower() for sign in _PASSING):
        return JournalUnavailable(
            f"the journal {path} cannot be used: {text}. Check free space and permissions of "
            f"{path.parent}, or name another folder with --state-dir. Nothing was lost."
        )
    return JournalUnusable(
        f"the journal {path} is damaged: {text}. Nothing was changed. Move it away "
        f"(mv {path} {path}.damaged) and run again: jobs then resume from the checkpoints on disk, "
        "without their history."
    )
