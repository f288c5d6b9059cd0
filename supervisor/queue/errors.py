"""What can be wrong with the queue's file, in words for people.

Owns the translation of SQLite's errors. Nothing is ever repaired or deleted here.
"""

import sqlite3
from pathlib import Path

from supervisor.host.sqlite import Trouble, trouble


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


def translate(error: sqlite3.Error, path: Path) -> Exception:
    """The same error, saying which file it is about and what a person can do.

    An error that is the program's own fault is returned as it is.
    """
    what = trouble(error)
    if what is Trouble.OURS:
        return error
    if what is Trouble.DAMAGED:
        return damaged(path, error)
    unavailable = QueueUnavailable(
        f"the queue {path} cannot be used: {error}. Check free space and permissions of "
        f"{path.parent}, or name another folder with --state-dir. Nothing was lost."
    )
    unavailable.full = what is Trouble.FULL
    return unavailable


def damaged(path: Path, why: object) -> QueueUnusable:
    """What to do about a file that cannot be understood. Its log goes with it."""
    aside = path.parent / "queue.damaged"
    return QueueUnusable(
        f"the queue {path} is damaged: {why}. Nothing was changed. Move it away "
        f"(mkdir {aside} && mv {path}* {aside}/) and start the daemon again: what runs goes on, "
        "what ran is in the journal; jobs that waited must be submitted again."
    )
