"""Entries and groups as rows of the queue's tables, and back.

Owns that mapping. What many jobs have in common (their needs, folder, group) is one object in
memory, however often it is stored.
"""

import json
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from supervisor.core.causes import State
from supervisor.queue.model import Entry, Group, Needs, Phase, Wish

T = TypeVar("T")
Row = tuple[Any, ...]

_PHASES = {str(one): one for one in Phase}
_WISHES = {str(one): one for one in Wish}
_STATES = {str(one): one for one in State}


def entry_row(entry: Entry) -> dict[str, Any]:
    """The columns of an entry, by name."""
    needs = entry.needs
    return {
        "id": entry.id,
        "seq": entry.seq,
        "uid": entry.uid,
        "name": entry.name,
        "folder": entry.folder,
        "gpus": needs.gpus,
        "gpu_memory_bytes": needs.gpu_memory_bytes,
        "share_gpu": needs.share_gpu,
        "cpus": needs.cpus,
        "memory_bytes": needs.memory_bytes,
        "submitted_s": entry.submitted_s,
        "queued_s": entry.queued_s,
        "priority": entry.priority,
        "after_jobs": json.dumps(entry.after),
        "key": entry.key,
        "group_name": entry.group,
        "claims": json.dumps(entry.claims),
        "stop_s": entry.stop_s,
        "phase": entry.phase.value,
        "wish": entry.wish.value,
        "state": entry.state.value,
        "why": entry.why,
        "placed_s": entry.placed_s,
        "ended_s": entry.ended_s,
        "launches": entry.launches,
        "lost": entry.lost,
        "boot_id": entry.boot_id,
    }


class EntryReader:
    """Makes entries of rows, in the order of columns of the statement `entries`.

    One reader is for one reading: it remembers what it has seen.
    """

    def __init__(self) -> None:
        self._seen: dict[object, object] = {}
        self._needs: dict[Row, Needs] = {}
        self._lists: dict[str, tuple[str, ...]] = {"[]": ()}

    def entry(self, row: Row) -> Entry:
        """One entry. Raises ValueError, KeyError or TypeError for what this program never wrote."""
        same = self._same
        submitted_s, queued_s = row[10], row[11]
        return Entry(
            id=row[0],
            seq=row[1],
            uid=same(row[2]),
            name=same(row[3]),
            folder=same(row[4]),
            needs=self._needs_of(row[5:10]),
            submitted_s=submitted_s,
            queued_s=submitted_s if queued_s == submitted_s else queued_s,
            priority=row[12],
            after=self._list(row[13], keep=True),
            key=row[14],
            group=same(row[15]),
            claims=self._list(row[16], keep=False),
            stop_s=same(row[17]),
            phase=_PHASES[row[18]],
            wish=_WISHES[row[19]],
            state=_STATES[row[20]],
            why=same(row[21]),
            placed_s=row[22],
            ended_s=row[23],
            launches=row[24],
            lost=row[25],
            boot_id=same(row[26]),
        )

    def _same(self, value: T) -> T:
        return cast("T", self._seen.setdefault(value, value))

    def _needs_of(self, row: Row) -> Needs:
        known = self._needs.get(row)
        if known is None:
            gpus, gpu_memory_bytes, share_gpu, cpus, memory_bytes = row
            known = Needs(gpus, gpu_memory_bytes, bool(share_gpu), cpus, memory_bytes)
            self._needs[row] = known
        return known

    def _list(self, text: str, *, keep: bool) -> tuple[str, ...]:
        known = self._lists.get(text)
        if known is None:
            known = tuple(map(str, json.loads(text)))
            if keep:  # an array waits for one job; folders are each job's own
                self._lists[text] = known
        return known


def group_row(group: Group) -> Mapping[str, Any]:
    """The columns of a group, by name."""
    return {
        "uid": group.uid,
        "name": group.name,
        "hold_after": group.hold_after,
        "failures": group.failures,
        "held": group.held,
    }


def group_of(row: Row) -> Group:
    """The group of a row, in the order of columns of the statement `groups`."""
    uid, name, hold_after, failures, held = row
    return Group(uid=uid, name=name, hold_after=hold_after, failures=failures, held=bool(held))
