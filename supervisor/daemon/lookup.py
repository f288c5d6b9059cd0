"""Which job is meant, who may touch it, and what the queue says of it.

Owns the meaning of a job's name in the API, and the fields that the queue adds to a job's document.
Changes nothing.
"""

import asyncio
import pwd
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from weakref import WeakKeyDictionary

from supervisor.core.causes import Cause, State
from supervisor.daemon.contracts import Conflict, Json, NoSuchJob, NotYours, Peer, Refusal, Shelves
from supervisor.daemon.roster import Roster
from supervisor.queue.model import Entry, Phase, Wish
from supervisor.queue.store import Happening
from supervisor.views.times import iso

_CAUSES = frozenset(map(str, Cause))
NAMED = 8  # so many are named in a refusal
_QUOTING: Mapping[str, dict[str, Json]] = {
    "attempts": {"reason": None},
    "quarantined": {"reason": "", "detail": ""},
}
_WHOLE_ID = re.compile(r".-[0-9a-f]{6}(-[0-9]+)?$")  # as supervisor.runner.opening makes them
LISTING_S = 0.5  # so long a listing waits for shelves
_Rows = asyncio.Future[dict[str, Json] | None]
_late: WeakKeyDictionary[Shelves, dict[int, _Rows]] = WeakKeyDictionary()  # by user
_ASKED = {Wish.STOP: State.STOPPING, Wish.CANCEL: State.STOPPING}


def find(roster: Roster, peer: Peer, text: str) -> Entry:
    """The job of an id, or of a name or the beginning of an id that is unique; one's own first.

    A whole id means that job and no other: `net-0a0a0a` is no short form of `net-0a0a0a-2`.

    Raises NoSuchJob, or Conflict where several are meant.
    """
    exact = roster.get(text)
    if exact is not None:
        return exact
    names = roster.names
    found = names.named(text, peer.uid) or names.named(text)
    if not found and text and not _WHOLE_ID.search(text):
        found = names.beginning(text, peer.uid) or names.beginning(text)
    if not found:
        raise NoSuchJob(f"the queue has no job {text}")
    if len({(one.name, one.folder, one.uid) for one in found}) > 1:
        ids = ", ".join(one.id for one in found[-NAMED:])
        raise Conflict(f"{text} may mean several jobs; say which is meant: {ids}")
    return found[-1]


def refuse_others(peer: Peer, entry: Entry, what: str) -> None:
    """Raise NotYours where somebody else's job is not theirs to `what`."""
    if entry.uid != peer.uid and not peer.admin:
        owner = user_name(entry.uid)
        raise NotYours(f"{entry.id} belongs to {owner}: only they, and admins, may {what}")


def as_told(peer: Peer, document: dict[str, Json]) -> dict[str, Json]:
    """A job's document as this peer may read it: what may quote its output is not for others.

    The document is a clerk's word, and so its owner's: of any shape.
    """
    if peer.admin or document["uid"] == peer.uid:
        return document
    told = document | {"why": document["waits"] or _cause(document.get("why"))}
    for part, said in _QUOTING.items():
        rows = told.get(part)
        if isinstance(rows, list):
            told[part] = [one | said for one in rows if isinstance(one, dict)]
        elif rows is not None:
            told[part] = None
    return told


def happening(peer: Peer, owner: int | None, one: Happening) -> dict[str, Json]:
    """What happened in the queue, as this peer may read it; `owner`: None of a forgotten job."""
    told = {"seq": one.seq, "at_s": one.at_s, "job": one.job_id, "kind": one.kind, **one.body}
    if "why" in told and not (peer.admin or peer.uid == owner):
        told["why"] = _cause(told["why"])
    return told


def _cause(why: object) -> str:
    """The cause with which a reason begins; a reason may quote anything."""
    cause, _, _ = str(why or "").partition(": ")
    return cause if cause in _CAUSES else ""


@lru_cache(maxsize=1000)
def user_name(uid: int) -> str:
    """The name of a user, or the number of one who has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def is_wanted(entry: Entry, wanted: Mapping[str, Json]) -> bool:
    """Whether a listing asks for this entry."""
    user = wanted.get("user")
    return (
        entry.seq > (wanted.get("after_seq") or 0)
        and wanted.get("state") in {None, str(state_of(entry))}
        and wanted.get("group") in {None, entry.group}
        and (user is None or str(user) in {str(entry.uid), user_name(entry.uid)})
    )


def state_of(entry: Entry) -> State:
    """Where the job is, as far as the queue knows; its journal knows better while it runs."""
    if entry.phase is Phase.ENDED:
        return entry.state
    if entry.phase is Phase.WAITING:
        return State.QUEUED
    return _ASKED.get(entry.wish, State.RUNNING)


async def documents(shelves: Shelves, entries: Sequence[Entry]) -> dict[str, dict[str, Json]]:
    """What shelves say of these jobs; of one that says nothing, what the queue knows.

    All users at once, and none of them takes the listing from everybody else: a shelf has LISTING_S
    to answer, and one that took longer is not waited for until it has answered. An honest one with
    ten thousand jobs may take that long: its rows are poorer then, and no less true.
    """
    found = {one.id: plain_document(one) for one in entries}
    by_user: defaultdict[int, list[str]] = defaultdict(list)
    for one in entries:
        if one.phase is not Phase.WAITING or one.launches:
            by_user[one.uid].append(one.id)
    late = _late.setdefault(shelves, {})
    waited: dict[_Rows, int] = {}
    for uid, ids in by_user.items():
        before = late.get(uid)
        if before is not None and not before.done():
            continue
        asked: _Rows = asyncio.ensure_future(_listed(shelves, uid, ids))
        if before is None or _has_come(before):
            late.pop(uid, None)
            waited[asked] = uid
        else:  # it was late, and gave no answer then: that one comes first
            late[uid] = asked
    if waited:
        await asyncio.wait(waited, timeout=LISTING_S)
    for asked, uid in waited.items():
        if asked.done():
            found.update(asked.result() or {})
        elif late.setdefault(uid, asked) is not asked:
            asked.cancel()  # another listing's question is on its way already
    return found


async def _listed(shelves: Shelves, uid: int, ids: Sequence[str]) -> dict[str, Json] | None:
    """What a user's shelf says of these jobs; None where it refuses."""
    mine = set(ids)
    with suppress(Refusal):
        rows = await shelves.of(uid).ask("listing", {"ids": ids})
        # A shelf is its user's: it speaks of their jobs, and of no others.
        return {row["id"]: row for row in rows if row["id"] in mine}
    return None


def _has_come(asked: _Rows) -> bool:
    """Whether a question that is over had an answer."""
    return not asked.cancelled() and asked.exception() is None and asked.result() is not None


def plain_document(entry: Entry) -> dict[str, Json]:
    """What a listing says of a job without a look at its owner's shelf.

    Of one that never had a runner the journal knows no more, and there may be ten thousand.
    """
    return {
        "id": entry.id,
        "name": entry.name,
        "state": str(state_of(entry)),
        "why": entry.why,
        "step": None,
        "total": None,
        "folder": entry.folder,
        "created_at": iso(entry.submitted_s),
        "updated_at": iso(entry.submitted_s),
        "runner_pid": None,
        "runner_alive": None,
        "attempt": None,
        "last_cause": None,
    }


def queue_fields(entry: Entry, waits: str | None, position: int | None) -> dict[str, Json]:
    """What the queue adds to a job's document; `position` counts those that wait, from 1."""
    fields: dict[str, Json] = {
        "id": entry.id,
        "seq": entry.seq,
        "user": user_name(entry.uid),
        "uid": entry.uid,
        "phase": str(entry.phase),
        "wish": str(entry.wish),
        "priority": entry.priority,
        "group": entry.group,
        "key": entry.key,
        "after": list(entry.after),
        "waits": waits if entry.phase is Phase.WAITING else None,
        "position": position if entry.phase is Phase.WAITING else None,
        "submitted_s": entry.submitted_s,
        "queued_s": entry.queued_s,
        "placed_s": entry.placed_s,
        "launches": entry.launches,
    }
    if entry.phase is not Phase.STARTED:  # a runner's word counts while there is one
        fields |= {"state": str(state_of(entry)), "why": waits or entry.why}
    return fields
