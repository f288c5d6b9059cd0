"""Which jobs `ps` lists, and what is known of each: the journals' word joined with the queue's.

Owns the choice of the rows and the joining; prints nothing. Invariant: where no daemon answers,
every job of the journals that this person may have is listed as it stands there.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supervisor.cli.jobs import opened
from supervisor.client.errors import ClientError
from supervisor.client.find import daemon_or_none, own_shelves
from supervisor.core.causes import State
from supervisor.journal import JobRecord, Journal
from supervisor.runner.home import JobFolder
from supervisor.views.documents import listing

if TYPE_CHECKING:
    from supervisor.client.calls import Daemon

NEWEST = (
    60  # so many jobs are shown besides those that somebody waits for, unless all are asked for
)
RUNNING = 200
NEEDED = frozenset(State) - {State.QUEUED, State.STOPPED, State.SUCCEEDED, State.FAILED}
NEEDED -= {State.CANCELLED}

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person wants to see; without `states`, all states."""

    states: tuple[str, ...] = ()
    user: str | None = None
    group: str | None = None
    every: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One job: its document of `ps --json`, with the queue's fields where a daemon has it.

    `record` is the word of the journal in `place`, where the job is this person's. `lost`: its
    runner is gone, and nobody starts another.
    """

    document: Document
    record: JobRecord | None = None
    place: Path | None = None
    lost: bool = False

    @property
    def created_s(self) -> float:
        """When it was accepted, epoch seconds."""
        if self.record is not None:
            return self.record.created_s
        return _seconds(self.document.get("created_at"))

    @property
    def updated_s(self) -> float:
        """When it changed last, epoch seconds."""
        if self.record is not None:
            return self.record.updated_s
        return _seconds(self.document.get("updated_at"))


@dataclass(frozen=True, slots=True)
class Own:
    """A job of this person's, and the journal that has it."""

    place: Path
    journal: Journal
    record: JobRecord


@dataclass(slots=True)
class Listing:
    """What `ps` shows, oldest first; `left_out` says how many in each state it does not show.

    `unserved`: jobs wait in a queue that nobody serves. `trouble`: why the daemon does not answer.
    """

    rows: list[Row] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    unserved: bool = False
    trouble: str = ""


def listed(state_dir: Path, asked: Asked) -> Listing:
    """The jobs that a person asked for.

    Raises:
        JournalError: a journal cannot be read.
    """
    found = Listing()
    queued = _of_daemon(state_dir, asked, found)
    documents = queued or {}
    with ExitStack() as reading:
        own = [
            one
            for place in own_shelves(state_dir)
            for one in _in(place, reading.enter_context(opened(place)))
            if one.record.id in documents or _is_wanted(one, asked)
        ]
        own.sort(key=lambda one: one.record.created_s)
        shown = own if asked.every else _chosen(own)
        found.left_out = _states(own) - _states(shown)
        for one, document in _with_documents(shown):
            told = documents.pop(one.record.id, None)
            lost = document["runner_alive"] is False and told is None
            if lost and JobFolder.of(one.place, one.record.id).surroundings.exists():
                lost = False  # it is the daemon's to start it, when it is its turn
                found.unserved |= queued is None
            found.rows.append(Row(document | (told or {}), one.record, one.place, lost))
    hidden = {one.record.id for one in own}
    found.rows += [Row(one) for one in documents.values() if one["id"] not in hidden]
    found.rows.sort(key=lambda one: one.created_s)
    return found


def _in(place: Path, journal: Journal | None) -> Iterable[Own]:
    records = [] if journal is None else journal.tally().jobs()
    return (Own(place, journal, one) for one in records if journal is not None)


def _with_documents(chosen: Sequence[Own]) -> Iterator[tuple[Own, Document]]:
    """Each with its document; every journal is asked once."""
    journals = {one.place: one.journal for one in chosen}
    for place, journal in journals.items():
        theirs = [one for one in chosen if one.place == place]
        yield from zip(theirs, listing(journal, [one.record for one in theirs]), strict=True)


def _states(own: Iterable[Own]) -> Counter[str]:
    return Counter(one.record.state for one in own)


def _of_daemon(state_dir: Path, asked: Asked, found: Listing) -> dict[str, Document] | None:
    """The daemon's jobs by their ids; None where none runs."""
    try:
        daemon = daemon_or_none(state_dir)
        if daemon is None:
            return None
        from supervisor.client.calls import Daemon  # noqa: PLC0415 - HTTP takes a while to load

        with daemon.connection:
            return {str(one["id"]): one for one in _asked_of(Daemon(daemon.connection), asked)}
    except ClientError as error:
        found.trouble = str(error)
        return {}


def _asked_of(daemon: "Daemon", asked: Asked) -> Iterator[Document]:
    """All that is wanted, or what of it runs and the newest."""
    limit = None if asked.every else NEWEST
    for state in asked.states or (None,):
        yield from daemon.jobs(state=state, limit=limit, user=asked.user, group=asked.group)
    if not asked.every and not asked.states:
        running = str(State.RUNNING)
        yield from daemon.jobs(state=running, limit=RUNNING, user=asked.user, group=asked.group)


def _is_wanted(one: Own, asked: Asked) -> bool:
    """Whether a job is wanted of which only the journal is asked: it knows of no group."""
    if asked.group is not None or (asked.states and one.record.state not in asked.states):
        return False
    return asked.user is None or asked.user in _owner(one.place)


def _owner(state_dir: Path) -> Sequence[str]:
    """Number and name of whoever has the jobs of a state folder."""
    import pwd  # noqa: PLC0415 - only where a user was named

    uid = state_dir.stat().st_uid
    try:
        return str(uid), pwd.getpwuid(uid).pw_name
    except KeyError:
        return (str(uid),)


def _chosen(own: Sequence[Own]) -> list[Own]:
    """Those that somebody waits for, however old, and the newest of the others."""
    edge = len(own) - NEWEST
    return [one for at, one in enumerate(own) if at >= edge or one.record.state in NEEDED]


def users(rows: Iterable[Row]) -> set[str]:
    """Whose jobs these are, as far as that is known."""
    return {str(one.document["user"]) for one in rows if one.document.get("user") is not None}


def _seconds(instant: str | None) -> float:
    return datetime.fromisoformat(instant).timestamp() if instant else 0.0
