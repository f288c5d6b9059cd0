"""Questions that change nothing: records, documents, rows, progress.

Owns which question is answered by what; the documents are those of the views. Never writes.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields

from supervisor.core.causes import Cause, State
from supervisor.daemon.contracts import Json
from supervisor.daemon.desk_fields import Arguments
from supervisor.daemon.desk_shelf import OpenShelf
from supervisor.host import flock
from supervisor.journal import JobRecord
from supervisor.runner.alive import runner_process
from supervisor.views import documents
from supervisor.views import totals as figures
from supervisor.views.times import iso

MOST_BYTES_OF_EVENTS = 8 * 1024 * 1024
FEW = 50  # so many jobs are looked up one by one
# In any other state a job without a runner has lost it.
ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.STOPPED, State.HOLDING, State.CANCELLED})
_FIELDS = tuple(one.name for one in fields(JobRecord) if one.name != "spec")


def records(shelf: OpenShelf, given: Arguments) -> list[Json]:
    """Jobs as the journal has them, oldest first, without their specs."""
    return [_record(one) for one in _wanted(shelf, given["ids"])]


def record(shelf: OpenShelf, given: Arguments) -> Json:
    """One job, with its spec."""
    found = shelf.record(given["id"])
    return _record(found) | {"spec": found.spec}


def listing(shelf: OpenShelf, given: Arguments) -> list[Json]:
    """The documents of `ps --json`."""
    journal = shelf.reading()
    if journal is None:
        return []
    return documents.listing(journal, _wanted(shelf, given["ids"]))


def document(shelf: OpenShelf, given: Arguments) -> Json:
    """The document of `show --json`."""
    return documents.document(shelf.chosen(given["id"]))


def explain(shelf: OpenShelf, given: Arguments) -> Json:
    """The document of `explain --json`."""
    return documents.explanation(shelf.chosen(given["id"]))


def report(shelf: OpenShelf, given: Arguments) -> Json:
    """The document of `report --json`."""
    return documents.report(shelf.chosen(given["id"]))


def totals(shelf: OpenShelf, given: Arguments) -> Json:
    """What all jobs come to, and what the next events add; None where no job ever ran."""
    journal = shelf.reading()
    if journal is None:
        return None
    return figures.totals(journal, given["after_seq"], given["limit"])


def attempts(shelf: OpenShelf, given: Arguments) -> list[Json]:
    """The rows of a job's attempts."""
    chosen = shelf.chosen(given["id"])
    return [asdict(one) for one in chosen.journal.attempts(given["id"])]


def checkpoints(shelf: OpenShelf, given: Arguments) -> list[Json]:
    """The rows of what verification said of a job's checkpoints."""
    chosen = shelf.chosen(given["id"])
    return [asdict(one) for one in chosen.journal.checkpoints(given["id"])]


def events(shelf: OpenShelf, given: Arguments) -> list[Json]:
    """The events of a job behind `after`, as `events --json` has them, at most `limit`.

    Fewer where they are long: whoever wants all asks again, after the last that came.
    """
    chosen = shelf.chosen(given["id"])
    told: list[Json] = []
    room = MOST_BYTES_OF_EVENTS
    for one in chosen.journal.events(given["id"], given["after"], given["limit"]):
        room -= len(one.body)
        if told and room < 0:
            break
        told.append(
            {"seq": one.seq, "at": iso(one.at_s), "kind": one.kind, "fields": _fields(one.body)}
        )
    return told


def progress(shelf: OpenShelf, given: Arguments) -> dict[str, Json]:
    """How far jobs are; those that are not there are left out."""
    journal = shelf.reading()
    last = {} if journal is None else journal.last_attempts()
    return {
        one.id: {
            "state": one.state,
            "step": one.step,
            "total": one.total,
            "updated_s": one.updated_s,
            "attempt": last.get(one.id, (None, None))[0],
        }
        for one in _wanted(shelf, given["ids"])
    }


def runner(shelf: OpenShelf, given: Arguments) -> Json:
    """Who runs a job, as far as the journal and the lock say."""
    return _runner(shelf, shelf.record(given["id"]))


def runners(shelf: OpenShelf, given: Arguments) -> dict[str, Json]:
    """The same of several jobs; those that are not there are left out."""
    return {one.id: _runner(shelf, one) for one in _wanted(shelf, given["ids"])}


def _runner(shelf: OpenShelf, found: JobRecord) -> Json:
    """`pid` is null unless that very process lives; `locked_by` is who holds the runner lock."""
    process = runner_process(found)
    holder = flock.holder(shelf.folder(found.id).runner_lock)
    return {
        "pid": None if process is None else process.pid,
        "start_ticks": None if process is None else process.start_ticks,
        "boot_id": found.boot_id,
        "locked_by": None if holder == os.getpid() else holder,  # we hold it to change something
        "state": found.state,
        "why": found.why,
        "ended": found.state in ENDED and not _waits_for_space(found),
    }


def _waits_for_space(found: JobRecord) -> bool:
    """Whether the job holds only until a disk has room: a runner waits for that, and goes on."""
    return found.state == State.HOLDING and found.why.startswith(f"{Cause.DISK_FULL}:")


def _wanted(shelf: OpenShelf, ids: Sequence[str] | None) -> list[JobRecord]:
    journal = shelf.reading()
    if journal is None:
        return []
    if ids is None:
        return journal.jobs()
    if len(ids) > FEW:
        chosen = set(ids)
        return [one for one in journal.jobs() if one.id in chosen]
    found = [journal.job(one) for one in dict.fromkeys(ids)]
    return [one for one in found if one is not None]


def _record(found: JobRecord) -> dict[str, Json]:
    return {name: getattr(found, name) for name in _FIELDS}


def _fields(body: str) -> Mapping[str, Json]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {"unreadable": body}
    return found if isinstance(found, dict) else {"unreadable": body}
