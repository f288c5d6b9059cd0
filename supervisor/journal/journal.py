"""The journal itself: open, append, read.

Owns the SQLite connection. An event and all that follows from it are one transaction; when
`append` has returned, they survive the death of this process and of the host.
"""

import sqlite3
import time
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from supervisor.host.sqlite import Scripts, Store, worded
from supervisor.journal.errors import JournalUnavailable, JournalUnusable, translate
from supervisor.journal.records import AttemptRecord, CheckpointRecord, EventRecord, JobRecord
from supervisor.journal.tally import Tally

# A listing knows no event and no item: what these need takes longer to load than it takes.
if TYPE_CHECKING:
    from supervisor.core.events import Event
    from supervisor.core.state import JobState
    from supervisor.journal.items import Ledger

FILE_NAME = "journal.sqlite"
SQL = Scripts(Path(__file__).parent, "statements.sql", "tally.sql")
SCHEMA_VERSION = 2
BUSY_TIMEOUT_S = 10.0
BUSY_LOOK_AGAIN_S = 0.005
# Rows that refer to others go first.
_OF_A_JOB = (
    *("quarantine", "digests", "items", "batches"),
    *("looked_at", "checkpoints", "attempts", "events", "jobs"),
)

RecordT = TypeVar("RecordT", AttemptRecord, CheckpointRecord, EventRecord, JobRecord)


class Journal:
    """All jobs of one state folder.

    Every method raises JournalUnavailable while the disk refuses, JournalUnusable when the file
    is damaged or from a newer version.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._store = Store(connection, SQL, partial(translate, path=path))
        self._run, self._transaction = self._store.run, self._store.transaction

    @classmethod
    def open(cls, state_dir: Path) -> "Journal":
        """The journal of this folder, made if there is none yet."""
        try:
            state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise JournalUnavailable(
                f"the state folder {state_dir} cannot be made: {error.strerror}. "
                "Name another with --state-dir."
            ) from error
        return cls._opened(state_dir / FILE_NAME, reading=False)

    @classmethod
    def open_existing(cls, state_dir: Path) -> "Journal | None":
        """The journal of this folder for reading, or None where no job ever ran.

        One of an older version that cannot be upgraded now is read as it is.
        """
        path = state_dir / FILE_NAME
        return cls._opened(path, reading=True) if path.exists() else None

    @classmethod
    def _opened(cls, path: Path, *, reading: bool) -> "Journal":
        with worded(partial(translate, path=path)):
            journal = cls(path, _connect(path))
            try:
                journal._prepare(reading=reading)
            except BaseException:
                journal.close()
                raise
            return journal

    def close(self) -> None:
        """Release the file. Nothing is lost without it."""
        self._connection.close()

    def create_job(self, job: JobRecord) -> None:
        """Accept a job; its first event follows."""
        fields_ = {
            "id": job.id,
            "name": job.name,
            "folder": job.folder,
            "spec": job.spec,
            "state": job.state,
            "at_s": job.created_s,
        }
        with self._transaction():
            self._run("insert_job", fields_)

    def append(
        self, job_id: str, event: "Event", state: "JobState", spec: str | None = None
    ) -> None:
        """Store an event with what follows from it; `state` is the job's state after it."""
        from supervisor.journal.codec import encode  # noqa: PLC0415 - see above
        from supervisor.journal.derive import derived_rows  # noqa: PLC0415 - see above

        now = {"job_id": job_id, "at_s": time.time()}
        with self._transaction():
            stored = {"kind": type(event).__name__, "body": encode(event)}
            self._run("insert_event", now | stored)
            for statement, parameters in derived_rows(event, state):
                self._run(statement, parameters | now)
            if spec is not None:
                self._run("update_spec", {"job_id": job_id, "spec": spec})

    def remove_job(self, job_id: str) -> None:
        """Forget a job whole, its history and its items: all of it or nothing.

        For who holds the job's runner lock. The only place where an event is ever deleted.
        """
        with self._transaction():
            for table in _OF_A_JOB:
                self._run(f"remove_{table}", {"job_id": job_id})

    def show_progress(self, job_id: str, step: int | None, total: int | None) -> None:
        """Let other processes see how far a job is. Not an event: only the latest counts."""
        with self._transaction():
            self._run(
                "update_progress",
                {"job_id": job_id, "step": step, "total": total, "at_s": time.time()},
            )

    def remember(self, job_id: str, path: str, fingerprint: str, verdict: str) -> None:
        """Keep what verification found, for as long as the file stays what it was."""
        row = {"job_id": job_id, "path": path, "fingerprint": fingerprint, "verdict": verdict}
        with self._transaction():
            self._run("remember", row)

    def recall(self, job_id: str, path: str, fingerprint: str) -> str | None:
        """What verification found of this very file, if it has looked before."""
        row = {"job_id": job_id, "path": path, "fingerprint": fingerprint}
        with self._store.worded():
            found = self._run("recall", row).fetchone()
        return None if found is None else str(found["verdict"])

    def replay(self, job_id: str) -> "list[Event]":
        """Every event of a job, in order."""
        from supervisor.journal.codec import decode  # noqa: PLC0415 - see above

        return [decode(one.kind, one.body) for one in self.events(job_id)]

    def events(self, job_id: str, after: int = 0, limit: int = -1) -> list[EventRecord]:
        """The stored events of a job behind a sequence number; at most `limit`, -1 for all."""
        wanted = {"job_id": job_id, "after": after, "limit": limit}
        return self._read(EventRecord, "events", wanted)

    def events_of_kind(self, job_id: str, kind: str) -> list[EventRecord]:
        """The stored events of a job that are of one kind, of however many there are."""
        return self._read(EventRecord, "events_of_kind", {"job_id": job_id, "kind": kind})

    def last_seq(self, job_id: str) -> int:
        """The sequence number of a job's last event; 0 if it has none."""
        with self._store.worded():
            return int(self._run("last_seq", {"job_id": job_id}).fetchone()[0])

    def jobs(self) -> list[JobRecord]:
        """All jobs, oldest first."""
        return self._read(JobRecord, "jobs", {})

    def job(self, job_id: str) -> JobRecord | None:
        """One job by its id."""
        found = self._read(JobRecord, "job", {"id": job_id})
        return found[0] if found else None

    def attempts(self, job_id: str) -> list[AttemptRecord]:
        """The attempts of a job, in order."""
        return self._read(AttemptRecord, "attempts", {"job_id": job_id})

    def last_attempts(self) -> dict[str, tuple[int, str | None]]:
        """The number of each job's last attempt, and the cause of the last one that ended."""
        with self._store.worded():
            rows = self._run("last_attempts", {}).fetchall()
        return {row["job_id"]: (row["number"], row["cause"]) for row in rows}

    def checkpoints(self, job_id: str) -> list[CheckpointRecord]:
        """What verification said of the job's checkpoints, in order of time."""
        return self._read(CheckpointRecord, "checkpoints", {"job_id": job_id})

    def tally(self) -> Tally:
        """All jobs together, for whoever counts."""
        return Tally(self._store)

    def ledger(self, job_id: str) -> "Ledger":
        """The items of a batch job; any other job has none."""
        from supervisor.journal.items import Ledger  # noqa: PLC0415 - see above

        return Ledger(self._store, job_id)

    def _read(
        self, record: type[RecordT], statement: str, parameters: Mapping[str, Any]
    ) -> list[RecordT]:
        names = [one.name for one in fields(record)]
        with self._store.worded():
            rows = self._run(statement, parameters).fetchall()
        return [record(**{name: row[name] for name in names}) for row in rows]

    def _prepare(self, *, reading: bool) -> None:
        """Refuse what is not ours before anything is written, then make what is missing."""
        version = self._version()
        if version > SCHEMA_VERSION:
            raise JournalUnusable(
                f"the journal {self.path} was written by a newer supervise (schema {version}; this "
                f"program knows {SCHEMA_VERSION}). Nothing was changed. Upgrade supervise, or name "
                "another folder with --state-dir."
            )
        tables = {row["name"] for row in self._run("tables", {})}
        if (tables or version) and "events" not in tables:
            raise JournalUnusable(
                f"{self.path} is another program's database. Nothing was changed. Move it away, or "
                "name another folder with --state-dir."
            )
        _switch_to_wal(self._connection)
        # FULL: an acknowledged event survives a power cut, not only a crash of this process.
        self._connection.execute("PRAGMA synchronous = FULL")
        if version == SCHEMA_VERSION:
            return
        try:
            self._upgrade()
        except JournalUnavailable:
            if not (reading and version):
                raise
            self._imagine(version)

    def _imagine(self, version: int) -> None:
        """Read from empty tables, of this connection alone, where the file has none."""
        self._connection.execute("PRAGMA temp_store = MEMORY")  # it may be the disk that refuses
        for statement in SQL.lacking(version):
            if "CREATE TABLE" in statement:
                self._connection.execute(statement.replace("CREATE TABLE", "CREATE TEMP TABLE"))

    def _upgrade(self) -> None:
        """Add what this version has and the file lacks: all of it, or nothing."""
        with self._transaction():
            version = self._version()  # another process may have been first
            for statement in SQL.lacking(version):
                self._connection.execute(statement)
            if version < SCHEMA_VERSION:
                self._connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    connection.row_factory = sqlite3.Row
    return connection


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """SQLite does not wait by itself where two processes make the same file at the same time."""
    give_up_at = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                raise
            time.sleep(BUSY_LOOK_AGAIN_S)
