"""Entries, found by what they are called, however many there are.

Owns the indexes of ids, names and groups; decides nothing. Invariant: what is asked of one word
costs by how many it means, and never by how many there are.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterator
from collections.abc import Set as AbstractSet

from supervisor.queue.model import Entry, Phase

Whose = int | None  # a user's; None: anybody's


class _Spelt:
    """Ids in the order of their letters, sorted when somebody asks."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}
        self._ids: list[str] = []
        self._sorted: list[int] = []
        self._stale = False

    def add(self, job_id: str, place: int) -> None:
        self.places[job_id] = place
        self._stale = True

    def drop(self, job_id: str) -> None:
        del self.places[job_id]
        self._stale = True

    def beginning(self, text: str) -> list[int]:
        """The places of all that begin so, in no order."""
        if self._stale:  # what was sorted comes first: that is sorted again in no time
            before = dict.fromkeys(one for one in self._ids if one in self.places)
            self._ids = sorted(before | self.places)
            self._sorted = [self.places[one] for one in self._ids]
            self._stale = False
        first = bisect_left(self._ids, text)
        last = bisect_right(self._ids, text, lo=first, key=lambda one: one[: len(text)])
        return self._sorted[first:last]


class Places:
    """Where entries stand in the order in which they came, found by what they are called.

    A place is a number that grows. An entry keeps its own, as it keeps id, owner, name and group.
    """

    def __init__(self) -> None:
        self._next = 0
        self._ids: dict[int, str] = {}
        self._going: set[int] = set()
        self._spelt: defaultdict[Whose, _Spelt] = defaultdict(_Spelt)
        self._words: defaultdict[tuple[str, Whose, str], set[int]] = defaultdict(set)

    def add(self, entry: Entry) -> None:
        """Give an entry the next place."""
        self._ids[self._next] = entry.id
        for word in _words(entry):
            self._words[word].add(self._next)
        for whose in (None, entry.uid):
            self._spelt[whose].add(entry.id, self._next)
        self._next += 1
        self.mark(entry)

    def mark(self, entry: Entry) -> None:
        """Note whether an entry has ended."""
        place = self._spelt[None].places[entry.id]
        (self._going.discard if entry.phase is Phase.ENDED else self._going.add)(place)

    def drop(self, entry: Entry) -> None:
        """Leave the place of an entry empty."""
        place = self._spelt[None].places[entry.id]
        del self._ids[place]
        self._going.discard(place)
        for word in _words(entry):
            self._words[word].discard(place)
            if not self._words[word]:
                del self._words[word]
        for whose in (None, entry.uid):
            self._spelt[whose].drop(entry.id)

    def id_at(self, place: int) -> str:
        """Which entry stands there."""
        return self._ids[place]

    def named(self, whose: Whose, name: str) -> Collection[int]:
        """The entries of that name, in no order."""
        return self._words.get(("name", whose, name), frozenset())

    def beginning(self, whose: Whose, text: str) -> Collection[int]:
        """The entries whose ids begin so, in no order."""
        return self._spelt[whose].beginning(text) if whose in self._spelt else ()

    def has(self, uid: int, job_id: str) -> bool:
        """Whether a user has an entry of this id."""
        return uid in self._spelt and job_id in self._spelt[uid].places

    def going(self, uid: int, word: str) -> list[str]:
        """The ids of a user's entries of a name, or a group, that have not ended; in order."""
        return [self._ids[one] for one in sorted(self._called(uid, word) & self._going)]

    def newest(self, uid: int, word: str) -> str | None:
        """The last of a user's entries of a name or a group."""
        return self._last(self._called(uid, word))

    def newest_beginning(self, uid: int, text: str) -> str | None:
        """The last of a user's entries whose ids begin so."""
        return self._last(self.beginning(uid, text))

    def _last(self, places: Collection[int]) -> str | None:
        return self._ids[max(places)] if places else None

    def _called(self, uid: int, word: str) -> AbstractSet[int]:
        named, grouped = (self._words.get((kind, uid, word)) for kind in ("name", "group"))
        return named | grouped if named and grouped else named or grouped or frozenset()


def _words(entry: Entry) -> Iterator[tuple[str, Whose, str]]:
    yield from (("name", whose, entry.name) for whose in (None, entry.uid))
    if entry.group is not None:
        yield "group", entry.uid, entry.group
