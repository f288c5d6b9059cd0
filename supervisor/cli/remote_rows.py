"""What the API answers of a job, as the rows of a journal that pages read.

Owns the way back from documents to rows. What a document leaves out is None; what a person may not
see is as if it were not there.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from supervisor.journal.records import (
    AttemptRecord,
    CheckpointRecord,
    Counts,
    EventRecord,
    JobRecord,
    QuarantinedItem,
)

if TYPE_CHECKING:
    from supervisor.client.calls import Daemon

FORBIDDEN = "not_yours"
NOWHERE = Path(os.devnull) / "of-somebody-else"  # below a file there is nothing, for anybody

Fields = dict[str, Any]
T = TypeVar("T")


class FarJournal:
    """What pages read of a journal, of one job, asked of the daemon."""

    def __init__(self, daemon: "Daemon", document: Fields) -> None:
        self.daemon = daemon
        self.id = str(document["id"])
        self._document = document

    def fresh(self) -> "FarJournal":
        """The same as the job is now."""
        return FarJournal(self.daemon, self.daemon.document(self.id))

    @property
    def why(self) -> str:
        """Why it is where it is."""
        return str(self._document.get("why") or "")

    @cached_property
    def explanation(self) -> Fields | None:
        """Its `explain --json`; None where that is not for this person."""
        return self._unless_forbidden("explain")

    def explained(self, number: int | None) -> Fields:
        """What that has of one attempt."""
        told = (self.explanation or {}).get("attempts", ())
        return next((one for one in told if one.get("number") == number), {})

    def attempts(self, _job_id: str = "") -> list[AttemptRecord]:
        """The attempts, in order; with the evidence where this person may see it."""
        return [
            attempt_of(self.id, one, self.explained(one.get("number")).get("evidence"))
            for one in self._document.get("attempts") or ()
        ]

    def checkpoints(self, _job_id: str = "") -> list[CheckpointRecord]:
        """The checkpoints, in order."""
        return [checkpoint_of(self.id, one) for one in self._document.get("checkpoints") or ()]

    def events(self, _job_id: str = "", after: int = 0) -> list[EventRecord]:
        """The events; none where they are not for this person."""
        from supervisor.client.errors import Refused  # noqa: PLC0415 - not for one's own jobs

        try:
            return list(self.told(after))
        except Refused as error:
            if error.kind == FORBIDDEN:
                return []
            raise

    def events_of_kind(self, job_id: str, kind: str) -> list[EventRecord]:
        """Those of one kind alone."""
        return [one for one in self.events(job_id) if one.kind == kind]

    def told(self, after: int = 0) -> Iterator[EventRecord]:
        """The same as they come. Raises Refused where they are not for this person."""
        for one in self.daemon.events(self.id, after):
            body = json.dumps(one["fields"], ensure_ascii=False)
            yield EventRecord(one["seq"], seconds(one["at"]) or 0.0, one["kind"], body)

    def ledger(self, _job_id: str = "") -> "FarLedger":
        """The items."""
        return FarLedger(self._document)

    def _unless_forbidden(self, part: str) -> Fields | None:
        from supervisor.client.errors import Refused  # noqa: PLC0415 - not for one's own jobs

        try:
            return cast("Fields", self.daemon.document(self.id, part))
        except Refused as error:
            if error.kind == FORBIDDEN:
                return None
            raise


class FarLedger:
    """What pages read of a ledger of items."""

    def __init__(self, document: Fields) -> None:
        self._document = document

    def counts(self) -> Counts:
        """How many items are in which state."""
        told = dict(self._document.get("items") or {})
        told["todo"] = told.get("left", 0) - told.get("suspect", 0)
        return Counts(**{one.name: int(told.get(one.name) or 0) for one in fields(Counts)})

    def quarantined(self, limit: int | None = None) -> list[QuarantinedItem]:
        """The items that are set apart."""
        return [
            made(
                QuarantinedItem,
                one | {"item": json.dumps(one.get("item")), "at_s": seconds(one.get("at")) or 0.0},
            )
            for one in (self._document.get("quarantined") or ())[:limit]
        ]

    def texts(self, numbers: Sequence[int]) -> list[str]:
        """No names are known beyond those of the quarantined items."""
        known = {one.number: one.item for one in self.quarantined()}
        return [known[number] for number in numbers]


def made(kind: type[T], told: Mapping[str, Any]) -> T:
    """A dataclass from a document, which may have more keys than it needs.

    Raises ClientError where one is missing.
    """
    names = {one.name for one in fields(kind)}  # type: ignore[arg-type]  # a dataclass, always
    try:
        return kind(**{name: value for name, value in told.items() if name in names})
    except TypeError as error:
        from supervisor.client.errors import ClientError  # noqa: PLC0415 - after a mistake alone

        raise ClientError(
            f"the daemon's answer lacks what this program expects ({error}). Is it of the same "
            "version? See: supervise daemon status"
        ) from error


def seconds(at: str | None) -> float | None:
    """Epoch seconds of a document's instant."""
    return None if at is None else datetime.fromisoformat(at).timestamp()


def record_of(told: Fields) -> JobRecord:
    """A job, from the document of `show --json`."""
    times = {
        "created_s": seconds(told.get("created_at")),
        "updated_s": seconds(told.get("updated_at")),
    }
    unknown = {"runner_ticks": None, "boot_id": None}
    return made(JobRecord, told | times | unknown | {"spec": _spec(told)})


def _spec(told: Fields) -> str:
    """As much of a frozen job as `views.frozen.said` reads."""
    job = {"command": told.get("command"), "folder": told.get("folder")}
    job["source"] = told.get("job_file") or ""
    if told.get("items") is not None:
        out = Path(str(told.get("results"))).parent
        # Whether there are results is told only to those who may look there themselves.
        out = out if os.access(out, os.X_OK) else NOWHERE
        job["map"] = {"entry": "its function", "items": "its items", "out": str(out)}
    return json.dumps({"job": job})


def attempt_of(job_id: str, told: Fields, evidence: Fields | None) -> AttemptRecord:
    """One of its attempts."""
    more = {
        "job_id": job_id,
        "chosen_s": seconds(told.get("chosen_at")),
        "spawned_s": seconds(told.get("started_at")),
        "progress_s": seconds(told.get("progress_at")),
        "exited_s": seconds(told.get("ended_at")),
        "ended_s": seconds(told.get("decided_at")),
        "resumed_path": told.get("checkpoint"),
        "resumed_written_s": seconds(told.get("resumed_written_at")),
        "start_ticks": None,
        "evidence": None if evidence is None else json.dumps(evidence),
    }
    return made(AttemptRecord, told | more)


def checkpoint_of(job_id: str, told: Fields) -> CheckpointRecord:
    """One of its checkpoints."""
    texts = {name: told.get(name) or "" for name in ("kind", "level", "reason")}
    more = {"seq": 0, "job_id": job_id, "written_s": seconds(told.get("written_at"))}
    return made(CheckpointRecord, told | texts | more | {"at_s": seconds(told.get("seen_at"))})
