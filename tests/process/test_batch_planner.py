"""A user's function lists the items in a child of its own, and its items are planned."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from supervisor.batch.planner import Listing, listing_command, listing_setup
from supervisor.batch.sources import CallableSource, SourceProblem, source_of
from supervisor.journal import JobRecord, Journal
from workers.protocol import ENV_CHANNEL_FD

JOB = JobRecord("j-1", "j", "/job", "{}", 1.0, 1.0, "queued", "", None, None, None, None, None)
DEADLINE_S = 60.0
MODULE = """
import os, sys

def photos(count=3):
    print("listing", flush=True)
    for number in range(count):
        yield {"photo": number, "name": "é"}

def twice():
    return ["b", "a", "b"]

def fails():
    yield 1
    raise LookupError("the bucket is empty")

def dies():
    yield 1
    os._exit(0)

def bad():
    yield {1, 2}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a user's folder with functions that list."""
    (tmp_path / "mine.py").write_text(MODULE)
    return tmp_path


def listed(entry: str, folder: Path, **args: object) -> Iterator[str]:
    """Run a listing in a child, as a runner does; its items as they come."""
    source = source_of(entry, folder)
    assert isinstance(source, CallableSource)
    ours, theirs = socket.socketpair()
    ours.settimeout(DEADLINE_S)
    child = subprocess.Popen(
        listing_command(sys.executable),
        cwd=folder,
        env=os.environ | {ENV_CHANNEL_FD: str(theirs.fileno())},
        pass_fds=[theirs.fileno()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    theirs.close()
    with closing(ours):
        try:
            ours.sendall(listing_setup(source, args))
            listing = Listing(source)
            while received := ours.recv(1 << 16):
                yield from listing.feed(received)
            listing.close(f"exit code {child.wait(DEADLINE_S)}")
        finally:
            ours.close()
            child.kill()
            child.wait(DEADLINE_S)


def test_what_a_function_yields_is_planned(folder: Path) -> None:
    """With its arguments, in its order, as the same texts that any source gives."""
    with closing(Journal.open(folder / "state")) as journal:
        journal.create_job(JOB)
        ledger = journal.ledger(JOB.id)
        assert max(ledger.plan(listed("mine:photos", folder, count=12_000))) == 12_000
        assert ledger.texts([1, 12_000]) == [
            '{"name":"\\u00e9","photo":0}',
            '{"name":"\\u00e9","photo":11999}',
        ]
        assert ledger.counts().todo == 12_000


def test_what_a_function_returns_is_listed(folder: Path) -> None:
    """A list is as good as a generator; the same item twice is listed twice."""
    assert list(listed("mine:twice", folder)) == ['"b"', '"a"', '"b"']


WRONG = {
    "mine:fails": "(?s)^mine:fails raised LookupError: the bucket is empty\n.*mine.py",
    "mine:dies": r"mine:dies did not list its items to the end: exit code 0",
    "mine:nothing": "nothing",
    "no_such_module:items": "no_such_module",
    "mine:bad": "item 1",
}


@pytest.mark.parametrize("entry", WRONG)
def test_a_function_that_fails_is_told_of(folder: Path, entry: str) -> None:
    """In the user's words and places; never taken for a source that has no more items."""
    with pytest.raises(SourceProblem, match=WRONG[entry]):
        list(listed(entry, folder))


def test_a_reader_that_goes_away_ends_the_listing(folder: Path) -> None:
    """A runner that dies leaves no function listing for ever."""
    going = listed("mine:photos", folder, count=10**9)
    assert next(going) == '{"name":"\\u00e9","photo":0}'
    going.close()
    assert list(going) == []
