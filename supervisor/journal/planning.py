"""One reading of a batch job's source: what is new, what is known, what is gone.

Owns the order of writing; says nothing of sources. New items are appended in the source's order and
are nobody's yet; in the end their digests, sorted, go into the index, and only then do they count.
Written in the source's order instead, the index would be rewritten many times over, for a digest
falls anywhere. Invariant: items up to `planned` are different from each other and in the index.
"""

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

from supervisor.host.sqlite import Store

CHUNK = 5_000  # items of one transaction, and between two breaths of the caller
MERGE = 1_000_000  # new items that are sorted at once
CHUNK_LENGTH = 1 << 20  # and not more characters than this, where items are long
DIGEST_BYTES = 16
_LOWEST, _HIGHEST = (b"", 0), (b"\xff" * 17, 0)  # of all digests
_GONE = 4

Position = tuple[bytes, int]  # a digest with its number: where a merge is


@dataclass(frozen=True, slots=True)
class Planned:
    """What a plan has found: how many were read, and what of it was new."""

    read: int
    added: int
    gone: int
    repeated: int


def digest_of(item: str) -> bytes:
    """What an item is looked up by: 16 bytes of BLAKE2b of its canonical text."""
    return blake2b(item.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


class Planning:
    """One plan; for one use, and one at a time on a connection."""

    def __init__(self, store: Store, batch: int) -> None:
        self._store = store
        self._batch = {"batch": batch}
        (self._planned,) = next(store.rows("planned", self._batch))
        self._known = self._planned  # items up to this one were there before this plan
        self._last = self._planned  # the highest number given
        self._place = 0  # the known item that the source named last
        self._seen = bytearray(self._known // 8 + 1)  # a bit for each of those
        self._read = self._added = self._gone = self._repeated = self._met = 0

    def read(self, items: Iterable[str]) -> Generator[int, None, Planned]:
        """Take in each item; gives how many were read so far."""
        self._clear()
        for chunk in _chunks(items):
            self._take(chunk)
            yield self._read
            if self._last - self._planned >= MERGE:
                yield from self._merge()
        yield from self._merge()
        yield from self._mark()
        with self._store.transaction():
            self._store.run("drop_sought", {})
            self._store.run("drop_arrivals", {})
            self._store.run("plan_read", self._batch | {"repeated": self._repeated})
        return Planned(self._read, self._added, self._gone, self._repeated)

    def _clear(self) -> None:
        """Take away what a plan that was broken off has left."""
        with self._store.transaction():
            self._store.run("drop_arrivals", {})
            self._store.run("make_arrivals", {})
            self._store.run("drop_sought", {})
            self._store.run("make_sought", {})
            above = self._batch | {"planned": self._planned}
            if self._store.run("clear_items", above).rowcount:
                self._store.run("clear_digests", above)

    def _take(self, chunk: list[str]) -> None:
        self._read += len(chunk)
        unmatched = self._unmatched(chunk) if self._known else chunk
        if not unmatched:
            return
        different = {digest_of(item): item for item in unmatched}
        self._repeated += len(unmatched) - len(different)
        with self._store.transaction():
            if self._known:
                self._meet_by_digest(different, digest_of(chunk[-1]))
            batch, first = self._batch["batch"], self._last + 1
            rows = ((batch, number, item) for number, item in enumerate(different.values(), first))
            self._store.run_many("add_item", rows)
            digests = ((digest, number) for number, digest in enumerate(different, first))
            self._store.run_many("add_arrival", digests)
        self._last += len(different)

    def _unmatched(self, chunk: list[str]) -> list[str]:
        """Meet what follows what was met last, as in a source that has hardly changed."""
        bounds = self._batch | {"after": self._place, "known": self._known, "size": len(chunk)}
        expected = dict(self._store.rows("items_after", bounds))
        unmatched = []
        for item in chunk:
            if item in expected:
                self._place = expected[item]
                self._meet(self._place)
            else:
                unmatched.append(item)
        return unmatched

    def _meet_by_digest(self, different: dict[bytes, str], last: bytes) -> None:
        """Meet those that are in the index, wherever, and leave those that are not."""
        self._store.run("empty_sought", {})
        self._store.run_many("add_sought", ((digest,) for digest in different))
        for digest, number in list(self._store.rows("sought_found", self._batch)):
            del different[digest]
            self._meet(number)
            if digest == last:  # the source goes on behind this one, perhaps
                self._place = number

    def _meet(self, number: int) -> None:
        """Note that the source names an item that has its number already."""
        byte, bit = number >> 3, 1 << (number & 7)
        if number > self._known or self._seen[byte] & bit:
            self._repeated += 1
        else:
            self._seen[byte] |= bit
            self._met += 1

    def _merge(self) -> Iterator[int]:
        """Put the new items into the index, in its own order, and let them count."""
        if self._last == self._planned:
            return
        with self._store.transaction():
            self._store.run("sort_arrivals", {})
        again, low = 0, _LOWEST
        while low != _HIGHEST:
            yield self._read
            low, more = self._merge_from(low)
            again += more
        added = self._last - self._planned - again
        with self._store.transaction():
            news = {"planned": self._last, "added": added}
            self._store.run("merged", self._batch | news)
            self._store.run("unsort_arrivals", {})
            self._store.run("empty_arrivals", {})
        self._planned, self._added = self._last, self._added + added
        self._repeated += again

    def _merge_from(self, low: Position) -> tuple[Position, int]:
        """Merge one part of the sorted digests: where the next begins, how many were repeated."""
        bounds = {"low": low[0], "low_number": low[1], "size": CHUNK}
        high = _HIGHEST
        for digest, number in self._store.rows("arrival_ahead", bounds):
            high = (digest, number)
        part = bounds | self._batch | {"high": high[0], "high_number": high[1]}
        with self._store.transaction():
            self._store.run("merge_digests", part)
            again = self._store.run("drop_repeated", part).rowcount
        return high, again

    def _mark(self) -> Iterator[int]:
        """Let items go that the source names no more, and take back those that it names again."""
        (there, gone) = next(self._store.rows("known_and_gone", self._batch))
        if not gone and there == self._met + self._added:
            return
        after = 0
        while True:
            bounds = self._batch | {"after": after, "known": self._known, "size": CHUNK}
            rows = list(self._store.rows("items_not_done", bounds))
            if not rows:
                return
            after = rows[-1][0]
            self._change(rows)
            yield self._read

    def _change(self, rows: list[tuple[int, int]]) -> None:
        batch, changes = self._batch["batch"], list[tuple[int, int, int]]()
        for number, state in rows:
            seen = bool(self._seen[number >> 3] & 1 << (number & 7))
            if seen == (state == _GONE):
                changes.append((0 if seen else _GONE, batch, number))
        if changes:
            with self._store.transaction():
                self._store.run_many("change_state", changes)
            self._gone += sum(1 for state, _, _ in changes if state == _GONE)


def _chunks(items: Iterable[str]) -> Iterator[list[str]]:
    chunk, length = list[str](), 0
    for item in items:
        chunk.append(item)
        length += len(item)
        if len(chunk) == CHUNK or length >= CHUNK_LENGTH:
            yield chunk
            chunk, length = [], 0
    if chunk:
        yield chunk
