"""The queue on disk: what was accepted, where each job is on its way, and what happened.

Owns the SQLite connection of `queue.sqlite`; decides nothing. When a method that changes something
has returned, all of it survives the death of this process and of the host; when it raised, or never
returned, all of it happened or nothing did.
"""

import json
import os
import sqlite3
import stat
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from supervisor.host.durable import fsync_folder
from supervisor.host.sqlite import Scripts, Store, worded
from supervisor.queue.errors import (
    NotStorable,
    QueueError,
    QueueUnavailable,
    QueueUnusable,
    damaged,
    translate,
)
from supervisor.queue.model import Entry, Group
from supervisor.queue.rows import EntryReader, Row, entry_row, group_of, group_row

__all__ = [
    "Happening",
    "NotStorable",
    "Queue",
    "QueueError",
    "QueueUnavailable",
    "QueueUnusable",
    "Submitted",
]

FILE_NAME = "queue.sqlite"
SQL = Scripts(Path(__file__).parent, "statements.sql")
SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 5.0
LOG_KEPT_BYTES = 8 << 20  # the write-ahead log, after a submission of many thousands
PRIVATE = 0o600  # what a job is given stands in it

Json = Any


@dataclass(frozen=True, slots=True)
class Submitted:
    """A new entry, with what its owner's shelf is to get: the frozen job and its surroundings."""

    entry: Entry
    spec: str
    surroundings: str


@dataclass(frozen=True, slots=True)
class Happening:
    """Something done to a job, or to a group (`job_id` None). `body` says by whom, and how."""

    seq: int
    at_s: float
    job_id: str | None
    kind: str
    body: dict[str, Json]


class Queue:
    """The queue of one daemon.

    Methods block for the disk, and raise QueueUnavailable while it refuses, QueueUnusable when the
    file is damaged or from a newer version. May be used from any thread, one at a time.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._store = Store(connection, SQL, partial(translate, path=path))
        self._run = self._store.run

    @classmethod
    def open(cls, folder: Path) -> "Queue":
        """The queue of this folder, made if there is none yet."""
        path = folder / FILE_NAME
        _make_private(path)
        with worded(partial(translate, path=path)):
            connection = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            queue = cls(path, connection)
            try:
                queue._prepare()
            except BaseException:
                queue.close()
                raise
            return queue

    def close(self) -> None:
        """Release the file. Nothing is lost without it."""
        self._connection.close()

    def add(self, new: Sequence[Submitted]) -> None:
        """Take in submissions: all of them or none. Each is a happening, `Submitted`.

        Raises NotStorable for a text or a number that cannot be stored.
        """
        with self._transaction():
            for one in new:
                entry = one.entry
                self._run("add_entry", entry_row(entry))
                kept = {"id": entry.id, "spec": one.spec, "surroundings": one.surroundings}
                self._run("add_unshelved", kept)
                self._happened(entry.id, "Submitted", {"uid": entry.uid, "name": entry.name})

    def unshelved(self) -> list[Submitted]:
        """What is accepted and may not have reached its owner's shelf, in order of submission."""
        entries = {one.id: one for one in self.entries()}
        return [Submitted(entries[id_], *rest) for id_, *rest in self._rows("unshelved", {})]

    def shelved(self, ids: Collection[str]) -> None:
        """Those are on the shelf: what was kept for it is erased, by `empty_log` also from the log.

        Not synced: after a power cut they may be put there again, which changes nothing.
        """
        with self._transaction(durable=False):
            self._store.run_many("shelved", [(one,) for one in ids])

    def empty_log(self) -> bool:
        """Take the write-ahead log into the file; False where somebody was in the way.

        Nobody is waited for: this is not worth anybody's time.
        """
        with suppress(sqlite3.Error):
            self._connection.execute("PRAGMA busy_timeout = 0")
            try:
                (busy, *_) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                self._connection.execute(f"PRAGMA busy_timeout = {round(BUSY_TIMEOUT_S * 1000)}")
            return not busy
        return False

    def entries(self) -> list[Entry]:
        """All entries, in order of submission."""
        return self._entries("entries", {})

    def entry(self, job_id: str) -> Entry | None:
        """One entry by its id."""
        found = self._entries("entry", {"id": job_id})
        return found[0] if found else None

    def change(self, entry: Entry, kind: str, **detail: Json) -> None:
        """Store the new value of an entry together with what happened to it."""
        self.change_all([(entry, kind, detail)])

    def change_all(self, changes: Sequence[tuple[Entry, str, Mapping[str, Json]]]) -> None:
        """Store several as one."""
        with self._transaction():
            for entry, kind, detail in changes:
                row = entry_row(entry)
                if not self._run("change_entry", row).rowcount:
                    self._run("add_entry", row)
                self._happened(entry.id, kind, detail)

    def next_seq(self) -> int:
        """The number of the next entry; never one that was used before."""
        return int(self._rows("next_seq", {})[0][0])

    def groups(self) -> list[Group]:
        """All groups, by user and name."""
        return [group_of(row) for row in self._rows("groups", {})]

    def change_group(self, group: Group, kind: str, **detail: Json) -> None:
        """Store the new value of a group together with what happened to it."""
        with self._transaction():
            self._run("change_group", group_row(group))
            self._happened(None, kind, {"uid": group.uid, "group": group.name} | detail)

    def forget(self, ids: Collection[str]) -> None:
        """Drop jobs that were removed, with all that is said of them."""
        with self._transaction():
            for statement in ("forget_entry", "shelved", "forget_happenings"):
                self._store.run_many(statement, [(one,) for one in ids])

    def happenings(
        self, after: int = 0, job_id: str | None = None, limit: int = 1000
    ) -> list[Happening]:
        """What happened behind a sequence number, to one job or to all, oldest first."""
        name = "happenings" if job_id is None else "happenings_of_job"
        wanted = {"after": after, "job_id": job_id, "limit": limit}
        with _understood(self.path):
            return [
                Happening(seq, at_s, of, kind, json.loads(body))
                for seq, at_s, of, kind, body in self._rows(name, wanted)
            ]

    def last_happening(self) -> int:
        """The sequence number of what happened last; 0 if nothing did."""
        return int(self._rows("last_happening", {})[0][0])

    def _entries(self, statement: str, wanted: Mapping[str, Any]) -> list[Entry]:
        reader = EntryReader()
        with _understood(self.path):
            return [reader.entry(row) for row in self._rows(statement, wanted)]

    def _happened(self, job_id: str | None, kind: str, body: Mapping[str, Json]) -> None:
        text = json.dumps(body, allow_nan=False)
        said = {"at_s": time.time(), "job_id": job_id, "kind": kind, "body": text}
        self._run("add_happening", said)

    def _rows(self, statement: str, parameters: Mapping[str, Any]) -> list[Row]:
        with _storable():
            return list(self._store.rows(statement, parameters))

    @contextmanager
    def _transaction(self, *, durable: bool = True) -> Iterator[None]:
        """All of the block or nothing of it."""
        with _storable(), self._store.worded():
            self._sync(durable=durable)
            with self._store.transaction():
                yield

    def _sync(self, *, durable: bool) -> None:
        # FULL: what was acknowledged survives a power cut, not only a crash of this process.
        self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")

    def _prepare(self) -> None:
        """Refuse what is not ours before anything is written, then make what is missing."""
        version = self._version()
        if version > SCHEMA_VERSION:
            raise QueueUnusable(
                f"the queue {self.path} was written by a newer supervise (schema {version}; this "
                f"program knows {SCHEMA_VERSION}). Nothing was changed. Upgrade supervise, or name "
                "another folder with --state-dir."
            )
        tables = {row[0] for row in self._rows("tables", {})}
        if (tables or version) and "happenings" not in tables:
            raise QueueUnusable(
                f"{self.path} is another program's database. Nothing was changed. Move it away, or "
                "name another folder with --state-dir."
            )
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute(f"PRAGMA journal_size_limit = {LOG_KEPT_BYTES}")
        self._connection.execute("PRAGMA secure_delete = ON")  # an environment is erased, not freed
        if version < SCHEMA_VERSION:
            with self._transaction():
                for statement in SQL.lacking(self._version()):
                    self._connection.execute(statement)
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])


def _make_private(path: Path) -> None:
    """Make the file, which nobody else may read; SQLite gives its log the same mode."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE))
            fsync_folder(path.parent)
        mode = path.lstat().st_mode  # never opened here: closing it would drop SQLite's locks
        if stat.S_ISREG(mode) and mode & 0o077:
            path.chmod(PRIVATE)
    except OSError as error:
        why = error.strerror or error
        unavailable = QueueUnavailable(
            f"the queue {path} cannot be made: {why}. Check free space and permissions of "
            f"{path.parent}, or name another folder with --state-dir."
        )
        raise unavailable from error
    if not stat.S_ISREG(mode):
        raise QueueUnusable(
            f"{path} is not a plain file. Nothing was changed. Move it away, or name another "
            "folder with --state-dir."
        )


@contextmanager
def _storable() -> Iterator[None]:
    """Refuse values that no database can hold."""
    try:
        yield
    except (UnicodeEncodeError, OverflowError) as error:
        raise NotStorable(f"the queue cannot store this: {error}") from error


@contextmanager
def _understood(path: Path) -> Iterator[None]:
    """Say of a row that this program never wrote that the file is damaged."""
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, f"a row cannot be read ({error})") from error
