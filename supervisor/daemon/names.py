"""Entries, found by what they are called, however many there are.

Owns the indexes of names, groups and ids; decides nothing. Invariant: what is asked of one word
costs by how many it means, and never by how many there are. They are small: what only one entry is
called takes no more than a place in a table.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator

from supervisor.queue.model import Entry, Phase

Ids = str | dict[str, None]  # one, or several in the order in which they came


class _Words:
    """Ids by a word."""

    def __init__(self) -> None:
        self._ids: dict[str, Ids] = {}

    def add(self, word: str, job_id: str) -> None:
        known = self._ids.get(word)
        if known is None:
            self._ids[word] = job_id
        elif isinstance(known, str):
            self._ids[word] = {known: None, job_id: None}
        else:
            known[job_id] = None

    def drop(self, word: str, job_id: str) -> None:
        known = self._ids[word]
        if isinstance(known, dict):
            del known[job_id]
        if not known or known == job_id:
            del self._ids[word]

    def get(self, word: str) -> Iterable[str]:
        known = self._ids.get(word, {})
        return (known,) if isinstance(known, str) else known


class Names:
    """The names of `entries`, whose owner tells of each that comes and goes.

    An entry keeps its id, owner, name and group, and a later one has a larger `seq`.
    """

    def __init__(self, entries: dict[str, Entry]) -> None:
        self.entries = entries
        self._named: defaultdict[int, _Words] = defaultdict(_Words)
        self._grouped: defaultdict[int, _Words] = defaultdict(_Words)
        self._sorted: list[str] = []
        self._new: list[str] = []
        self._gone = False

    def add(self, entry: Entry) -> None:
        """Take in an entry that is one of `entries` now."""
        self._named[entry.uid].add(entry.name, entry.id)
        if entry.group is not None:
            self._grouped[entry.uid].add(entry.group, entry.id)
        self._new.append(entry.id)

    def drop(self, entry: Entry) -> None:
        """Let go of one that is none of `entries` any more."""
        self._named[entry.uid].drop(entry.name, entry.id)
        if entry.group is not None:
            self._grouped[entry.uid].drop(entry.group, entry.id)
        self._gone = True

    def named(self, name: str, uid: int | None = None) -> list[Entry]:
        """The entries of that name, of one user or of all; in order."""
        of = list(self._named) if uid is None else [uid]
        ids = (job for one in of if one in self._named for job in self._named[one].get(name))
        return self._in_order(ids)

    def beginning(self, text: str, uid: int | None = None) -> list[Entry]:
        """The entries whose ids begin so, of one user or of all; in order."""
        found = self._in_order(self._spelt(text))
        return found if uid is None else [one for one in found if one.uid == uid]

    def going(self, uid: int, word: str) -> list[str]:
        """The ids of a user's entries of a name, or a group, that have not ended; in order."""
        return [one.id for one in self._called(uid, word) if one.phase is not Phase.ENDED]

    def newest(self, uid: int, word: str) -> str | None:
        """The last of a user's entries of a name or a group."""
        return _last(self._called(uid, word))

    def newest_beginning(self, uid: int, text: str) -> str | None:
        """The last of a user's entries whose ids begin so."""
        return _last(self.beginning(text, uid))

    def _called(self, uid: int, word: str) -> list[Entry]:
        both = [one[uid] for one in (self._named, self._grouped) if uid in one]
        return self._in_order(dict.fromkeys(job for one in both for job in one.get(word)))

    def _in_order(self, ids: Iterable[str]) -> list[Entry]:
        return sorted((self.entries[one] for one in ids), key=lambda one: one.seq)

    def _spelt(self, text: str) -> Iterator[str]:
        if self._new or self._gone:  # what was sorted comes first: that is sorted again in no time
            known = dict.fromkeys([*self._sorted, *self._new])
            self._sorted = sorted(one for one in known if one in self.entries)
            self._new, self._gone = [], False
        first = bisect_left(self._sorted, text)
        last = bisect_right(self._sorted, text, lo=first, key=lambda one: one[: len(text)])
        return iter(self._sorted[first:last])


def _last(entries: list[Entry]) -> str | None:
    return entries[-1].id if entries else None
