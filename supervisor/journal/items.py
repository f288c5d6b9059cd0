"""The ledger of a batch job's items: which there are, which are done, which are set aside.

Owns the items' rows; never knows what an item means or how it is worked on. An item is its
canonical JSON text; it is known by a number from 1, which it keeps for ever. Invariant: an item
that is done never changes its state again, whoever asks (the schema itself refuses it).

Memory does not grow with the number of items: rows are streamed, and what a plan remembers of the
items that it has seen is one bit each.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import islice

from supervisor.host.sqlite import Store
from supervisor.journal.planning import Planned, Planning, digest_of
from supervisor.journal.records import Counts, QuarantinedItem

NOTHING = Counts(0, 0, 0, 0, 0, 0, 0)


class Ledger:
    """The items of one job; made by `Journal.ledger`.

    Every method raises JournalUnavailable while the disk refuses, JournalUnusable when the file
    is damaged. A job that was never planned has no items.
    """

    def __init__(self, store: Store, job_id: str) -> None:
        self._store = store
        self._job = {"job_id": job_id}

    def plan(self, items: Iterable[str]) -> Generator[int, None, Planned]:
        """Learn which items there are; gives how many were read so far, every few thousand.

        Between two of these nothing is open, so the caller may do other work; it then goes on
        until the end, whose value tells what has changed. Items that were known keep their number
        and state. What the source names no more, and is not done, is gone; it comes back with the
        plan that names it again. A plan that was broken off is repaired by the next one: until
        then its new items are not seen by anybody.
        """
        with self._store.transaction():
            self._store.run("begin_batch", self._job)
        return (yield from Planning(self._store, self._batch()).read(items))

    def counts(self) -> Counts:
        """How many items are in which state; cheap enough to be asked every second."""
        for row in self._store.rows("batch_counts", self._job):
            return Counts(*row)
        return NOTHING

    def todo(self, after: int = 0, limit: int | None = None) -> tuple[tuple[int, int], ...]:
        """Give the items still to be done, as inclusive ranges of their numbers, ascending.

        `after` and `limit` bound the numbers looked at and the ranges given, for a job whose
        rest is in many pieces.
        """
        ranges = _ranges(self._numbers_todo(after))
        return tuple(islice(ranges, limit))

    def suspects(self) -> tuple[int, ...]:
        """Give the items that made a worker fail and are to be tried apart, ascending."""
        return tuple(number for (number,) in self._store.rows("items_suspect", self._job))

    def texts(self, numbers: Sequence[int]) -> list[str]:
        """Give the canonical text of each number, in the same order.

        Raises:
            KeyError: there is no item of that number.
        """
        batch, found = self._batch(), dict[int, str]()
        for low, high in _ranges(iter(sorted(set(numbers)))):
            bounds = {"batch": batch, "low": low, "high": high}
            found.update(self._store.rows("item_texts", bounds))
        return [found[number] for number in numbers]

    def settle(self, numbers: Sequence[int], results_bytes: int) -> None:
        """Acknowledge items: they are done for ever, and the results file is this long with them.

        When this returns, both survive a power cut. Items that were done before stay as they are.
        """
        batch = self._batch()
        ranges = [(batch, low, high) for low, high in _ranges(iter(sorted(set(numbers))))]
        with self._store.transaction():
            self._store.run_many("settle_items", ranges)
            self._store.run("settle_results", {"batch": batch, "results_bytes": results_bytes})

    def results_bytes(self) -> int:
        """How long the results file is with all that is done; what lies beyond is not settled."""
        for (length,) in self._store.rows("results_bytes", self._job):
            return int(length)
        return 0

    def quarantined(self, limit: int | None = None) -> list[QuarantinedItem]:
        """Give the items that are not tried again by themselves, in order of their numbers."""
        wanted = self._job | {"limit": -1 if limit is None else limit}
        return [QuarantinedItem(*row) for row in self._store.rows("quarantined", wanted)]

    def each_quarantined(self) -> Iterator[QuarantinedItem]:
        """Give the same one by one: they are never all in memory."""
        for row in self._store.rows("quarantined", self._job | {"limit": -1}):
            yield QuarantinedItem(*row)

    def find(self, items: Iterable[str]) -> dict[str, int]:
        """Give the numbers of these canonical texts; those that are no items are left out."""
        found = {}
        for item in items:
            wanted = self._job | {"digest": digest_of(item)}
            for (number,) in self._store.rows("item_number", wanted):
                found[item] = number
        return found

    def _batch(self) -> int:
        for (batch,) in self._store.rows("batch", self._job):
            return int(batch)
        return 0  # never planned: the number of no batch

    def _numbers_todo(self, after: int) -> Iterator[int]:
        for (number,) in self._store.rows("items_todo", self._job | {"after": after}):
            yield number


def _ranges(numbers: Iterator[int]) -> Iterator[tuple[int, int]]:
    """Give the runs of neighbours among ascending numbers."""
    low = high = next(numbers, 0)
    if not low:
        return
    for number in numbers:
        if number != high + 1:
            yield low, high
            low = number
        high = number
    yield low, high
