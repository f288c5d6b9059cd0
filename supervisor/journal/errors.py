"""What can be wrong with a journal, in words for people.

Owns the translation of SQLite's errors. Nothing is ever repaired or deleted here.
"""

import sqlite3
from pathlib import Path

from supervisor.host.sqlite import Trouble, trouble


class JournalError(Exception):
    """The journal could not be used; the message says where, why and what to do."""


class JournalUnavailable(JournalError):
    """For now: the disk is full, read-only or failing, or another process holds the file.

    `full` says that it is the room that is missing.
    """

    full = False


class JournalUnusable(JournalError):
    """For good: the file is corrupt, not a journal, or from a newer version."""


def translate(error: sqlite3.Error, path: Path) -> Exception:
    """The same error, saying which file it is about and what a person can do.

    An error that is the program's own fault is returned as it is.
    """
    what = trouble(error)
    if what is Trouble.OURS:
        return error
    if what is Trouble.DAMAGED:
        return JournalUnusable(
            f"the journal {path} is damaged: {error}. Nothing was changed. Move it away "
            f"(mv {path} {path}.damaged) and run again: jobs then resume from the checkpoints on "
            "disk, without their history."
        )
    unavailable = JournalUnavailable(
        f"the journal {path} cannot be used: {error}. Check free space and permissions of "
        f"{path.parent}, or name another folder with --state-dir. Nothing was lost."
    )
    unavailable.full = what is Trouble.FULL
    return unavailable
