"""All entries of the queue, in memory, in step with the file.

Owns the mirror and who is told of changes; decides nothing. Every change raises Refusal where the
disk refuses. Invariant: what is here was committed before, so whoever acts on it acts on what
survives this process.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from weakref import WeakValueDictionary

from supervisor.daemon.contracts import NoSuchJob, ShelfUnavailable, Unacceptable
from supervisor.daemon.names import Names
from supervisor.queue.model import Entry, Group, Phase
from supervisor.queue.store import Happening, NotStorable, Queue, QueueError, Submitted

PAGE = 500  # so many happenings are read at a time


class Roster:
    """The entries and groups of a queue. `changes` counts what was done to them.

    `names` is where entries are looked up by what they are called.
    """

    def __init__(self, queue: Queue) -> None:
        self.changes = 0
        self._queue = queue
        self._entries = {one.id: one for one in queue.entries()}
        self.names = Names(self._entries)
        self._groups = {(one.uid, one.name): one for one in queue.groups()}
        self._claimed: dict[tuple[int, str], set[str]] = {}
        self._keys: dict[tuple[int, str], str] = {}
        self._phases: dict[Phase, dict[str, None]] = {phase: {} for phase in Phase}
        self._listeners: set[asyncio.Event] = set()
        self._held: Counter[str] = Counter()
        # A lock lives for as long as somebody has it, or waits for it.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        for one in self._entries.values():
            self._index(one)

    def add(self, new: Sequence[Submitted]) -> None:
        """Take in submissions: all of them, or none when it raises Refusal."""
        with _in_words():
            self._queue.add(new)
        for one in new:
            self._entries[one.entry.id] = one.entry
            self._index(one.entry)
        self._tell()

    def change(self, entry: Entry, kind: str, **detail: Any) -> None:  # noqa: ANN401 - JSON
        """Commit a new value of an entry, and what happened to it."""
        self.change_all([(entry, kind, detail)])

    def change_all(self, changes: Sequence[tuple[Entry, str, dict[str, Any]]]) -> None:
        """Commit several as one."""
        if not changes:
            return
        for entry, _, _ in changes:
            if entry.id not in self._entries:
                raise NoSuchJob(f"{entry.id} was removed meanwhile")
        with _in_words():
            self._queue.change_all(changes)
        for entry, _, _ in changes:
            self._phases[self._entries[entry.id].phase].pop(entry.id, None)
            self._entries[entry.id] = entry
            self._phases[entry.phase][entry.id] = None
        self._tell()

    def forget(self, ids: Collection[str]) -> None:
        """Drop entries for good."""
        with _in_words():
            self._queue.forget(ids)
        self.changes += 1
        for one in ids:
            entry = self._entries.pop(one, None)
            if entry is None:
                continue
            self._phases[entry.phase].pop(one, None)
            self.names.drop(entry)
            for claim in entry.claims:
                self._claimed[entry.uid, claim].discard(one)
            if entry.key is not None:
                self._keys.pop((entry.uid, entry.key), None)

    @contextmanager
    def held(self, ids: Collection[str]) -> Iterator[None]:
        """Keep waiting jobs from being placed while somebody changes them."""
        self._held.update(ids)
        try:
            yield
        finally:
            self._held.subtract(ids)
            self._held = +self._held  # those that nobody holds any more are not kept

    @asynccontextmanager
    async def turn(self, job_id: str) -> AsyncIterator[None]:
        """Have a job in our hands alone: one after the other, and nobody places it meanwhile."""
        lock = self._turns.setdefault(job_id, asyncio.Lock())
        async with lock:
            with self.held([job_id]):
                yield

    def is_held(self, job_id: str) -> bool:
        """Whether somebody is changing this job."""
        return self._held[job_id] > 0

    def get(self, job_id: str) -> Entry | None:
        """An entry by its id."""
        return self._entries.get(job_id)

    def all(self) -> Iterable[Entry]:
        """Every entry, in order of submission."""
        return self._entries.values()

    def of(self, phase: Phase) -> list[Entry]:
        """The entries in a phase."""
        return [self._entries[one] for one in self._phases[phase]]

    def count(self, phase: Phase) -> int:
        """How many are in a phase."""
        return len(self._phases[phase])

    def with_key(self, uid: int, key: str) -> Entry | None:
        """The job that was submitted under a key."""
        return self._entries.get(self._keys.get((uid, key), ""))

    def claiming(self, uid: int, folder: str) -> list[Entry]:
        """The jobs of a user that write to a folder, ended ones too."""
        return [self._entries[one] for one in sorted(self._claimed.get((uid, folder), ()))]

    def group(self, uid: int, name: str) -> Group:
        """A group, a new one where nobody spoke of it before."""
        return self._groups.get((uid, name)) or Group(uid=uid, name=name)

    def groups(self) -> list[Group]:
        """Every group."""
        return list(self._groups.values())

    def change_group(self, group: Group, kind: str, **detail: Any) -> None:  # noqa: ANN401 - JSON
        """Commit a new value of a group."""
        with _in_words():
            self._queue.change_group(group, kind, **detail)
        self._groups[group.uid, group.name] = group
        self._tell()

    def failures(self) -> dict[tuple[int, str], int]:
        """Failures in a row, of each group."""
        return {key: one.failures for key, one in self._groups.items()}

    def held_groups(self) -> frozenset[tuple[int, str]]:
        """The groups that start nothing."""
        return frozenset(key for key, one in self._groups.items() if one.held)

    async def happenings(self, after: int | None = None) -> AsyncIterator[Happening]:
        """What happens from now on, or behind a sequence number, for as long as it is read."""
        last = after if after is not None else self._queue.last_happening()
        news = asyncio.Event()
        self._listeners.add(news)
        try:
            while True:
                news.clear()
                for one in self._queue.happenings(last, limit=PAGE):
                    last = one.seq
                    yield one
                    news.set()
                await news.wait()
        finally:
            self._listeners.discard(news)

    def touch(self) -> None:
        """Count a change of a job that its shelf alone knows of."""
        self.changes += 1

    def _tell(self) -> None:
        self.changes += 1
        for news in self._listeners:
            news.set()

    def _index(self, entry: Entry) -> None:
        self.names.add(entry)
        self._phases[entry.phase][entry.id] = None
        for claim in entry.claims:
            self._claimed.setdefault((entry.uid, claim), set()).add(entry.id)
        if entry.key is not None:
            self._keys[entry.uid, entry.key] = entry.id


@contextmanager
def _in_words() -> Iterator[None]:
    """Refuse where the disk does; nothing was changed then."""
    try:
        yield
    except NotStorable as error:
        raise Unacceptable(str(error)) from error
    except QueueError as error:
        raise ShelfUnavailable(str(error)) from error
