"""The names of the jobs in a state folder, read in a few milliseconds.

Owns one statement over the journal's table of jobs, for verbs that only need to know which job is
meant and must not wait for the journal's own modules. Reads only, and never makes or upgrades a
file. Invariant: what it cannot read it leaves to the journal, which says why in words.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

FILE_NAME = "journal.sqlite"  # as supervisor.journal has it
BUSY_S = 2.0


@dataclass(frozen=True, slots=True)
class Known:
    """One job of the state folder `place`. `created_s` is wall clock, epoch seconds.

    `source` is the path of its job file, where that was asked for and is known.
    """

    id: str
    name: str
    folder: str
    state: str
    created_s: float
    source: str | None
    place: Path


def known_jobs(places: Sequence[Path], *, sources: bool = False) -> list[Known]:
    """The jobs of these state folders together, oldest first.

    Raises:
        JournalError: a journal cannot be used.
    """
    found = [one for place in places for one in _of(place, sources=sources)]
    return sorted(found, key=lambda one: one.created_s)  # stable: as the journal orders them


def _of(place: Path, *, sources: bool) -> list[Known]:
    import sqlite3  # noqa: PLC0415 - not where an id was given to the daemon

    path = place / FILE_NAME
    try:
        if not path.exists():
            return []
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_S)) as connection:
            rows = connection.execute(_statement(), {"sources": sources}).fetchall()
    except (sqlite3.Error, OSError):
        return _slowly(place, sources=sources)
    return [
        Known(id_, name, folder, state, created_s, source, place)
        for id_, name, folder, state, created_s, source in rows
    ]


def _slowly(place: Path, *, sources: bool) -> list[Known]:
    """The same by the journal's own means, which say in words what is wrong with a file."""
    from supervisor.journal import Journal, JournalUnavailable  # noqa: PLC0415 - slow to load
    from supervisor.views.frozen import said  # noqa: PLC0415 - the same

    try:
        journal = Journal.open_existing(place)
    except OSError as error:
        raise JournalUnavailable(
            f"the state folder {place} cannot be read: {error.strerror}. "
            "Name another with --state-dir."
        ) from error
    if journal is None:
        return []
    with closing(journal):
        jobs = journal.jobs()
    return [
        Known(
            id=one.id,
            name=one.name,
            folder=one.folder,
            state=one.state,
            created_s=one.created_s,
            source=said(one).source if sources else None,
            place=place,
        )
        for one in jobs
    ]


def _statement() -> str:
    return Path(__file__).with_name("index.sql").read_text(encoding="utf-8")
