"""A real listing of items over its channel, as the planner reads it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.batch_worker import BatchWorker
from workers import lines, messages
from workers.protocol import LISTING_END, canonical

ENTRIES = """
import threading

def pairs(count=3):
    for number in range(count):
        yield {"b": number, "a": f"p{number}.jpg"}

def as_list():
    return ["b", "a", "b"]

def one_text():
    return "photos"

def fails(after):
    yield from range(after)
    raise ValueError("the index is torn")

def bad():
    yield 1
    yield {"when": {1, 2}}

async def later():
    return []

def counted(path):
    for number in range(1_000_000):
        open(path, "w").write(str(number))
        yield "x" * 10_000

def prints():
    print("listing")
    return [1]

def slowly(go):
    yield 1
    threading.Event().wait(0.25)
    yield 2
    with open(go) as pipe:
        pipe.read()
"""


@pytest.fixture
def listing(tmp_path: Path) -> Iterator[BatchWorker]:
    """Start a listing in a folder with entries of the user's own."""
    (tmp_path / "entries.py").write_text(ENTRIES)
    with BatchWorker(tmp_path, "list") as started:
        yield started


def test_each_item_is_its_canonical_text(listing: BatchWorker) -> None:
    """One a line, in the order in which they come, and `end`."""
    listing.setup("entries:pairs", {"count": 2})
    assert list(listing.lines()) == [
        b'{"a":"p0.jpg","b":0}',
        b'{"a":"p1.jpg","b":1}',
        LISTING_END,
    ]
    assert listing.exit_code() == 0


def test_a_list_will_do(listing: BatchWorker) -> None:
    """A function may return its items as well as yield them; what it prints is the log."""
    listing.setup("entries:as_list")
    assert list(listing.lines()) == [b'"b"', b'"a"', b'"b"', LISTING_END]
    with BatchWorker(listing.cwd, "list") as other:
        assert list(other.setup("entries:prints").lines()) == [b"1", LISTING_END]
        assert other.logged() == "listing\n"


@pytest.mark.parametrize(
    ("entry", "args", "kind", "words"),
    [
        ("entries:fails", {"after": 2}, "error", "the index is torn"),
        ("entries:fails", {}, "bad_config", "missing a required argument: 'after'"),
        ("entries:bad", {}, "bad_result", "item 2['when'] is a set"),
        ("entries:later", {}, "bad_config", "async"),
        ("entries:one_text", {}, "bad_config", "must yield items"),
        ("entries:none", {}, "bad_config", "there is no none"),
    ],
)
def test_a_listing_that_fails_does_not_end(
    listing: BatchWorker, entry: str, args: dict[str, int], kind: str, words: str
) -> None:
    """The last line says why, and there is no `end`."""
    heard = list(listing.setup(entry, args).lines())
    assert LISTING_END not in heard
    unready = lines.parse_report(heard[-1])
    assert isinstance(unready, messages.Unready)
    assert unready.failure.kind == kind
    assert words in unready.failure.message
    assert listing.exit_code() == 1


def test_no_more_is_listed_than_is_read(listing: BatchWorker, eventually) -> None:
    """A reader that waits makes the user's generator wait."""
    count = listing.cwd / "count"
    listing.setup("entries:counted", {"path": str(count)})
    stat = Path(f"/proc/{listing.process.pid}/wchan")
    eventually(lambda: count.exists() and "sock" in stat.read_text())
    assert 1 < int(count.read_text()) < 1000


def test_what_comes_slowly_is_not_kept_back(listing: BatchWorker) -> None:
    """Items are sent before the listing ends, not only in big pieces."""
    go = listing.cwd / "go"
    os.mkfifo(go)
    heard = iter(listing.setup("entries:slowly", {"go": str(go)}).lines())
    assert [next(heard), next(heard)] == [b"1", b"2"]
    go.write_text("go")
    assert list(heard) == [LISTING_END]


def test_a_line_of_a_listing_is_no_report() -> None:
    """No item's text looks like `unready` or `end`, so the reader need not guess."""
    for item in (None, True, 1, -1.5, "end", "unready {}", [], {"a": 1}):
        text = canonical(item).encode()
        assert text != LISTING_END
        assert not text.startswith(b"unready")
        assert json.loads(text) == item
