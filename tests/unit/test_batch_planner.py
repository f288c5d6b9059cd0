"""How the answer of a listing is read: whole, or with the reason why not."""

import json
import sys
from pathlib import Path

import pytest

from supervisor.batch.planner import Listing, listing_command, listing_setup
from supervisor.batch.sources import ITEM_LIMIT, CallableSource, SourceProblem

SOURCE = CallableSource("pkg:items")
FAILURE = {"kind": "error", "type": "ValueError", "message": "no photos", "fatal": False}


def unready(**facts: object) -> bytes:
    """What a listing says that fails."""
    return b"unready " + json.dumps(FAILURE | {"traceback": "  File x"} | facts).encode() + b"\n"


def test_the_command_names_our_file() -> None:
    """By its path, for the interpreter is the user's and knows nothing of this package."""
    python, file, verb = listing_command(sys.executable)
    assert (python, verb) == (sys.executable, "list")
    assert Path(file).is_file()


def test_the_first_line_says_what_to_list() -> None:
    """Entry and arguments; one line, whatever is in them."""
    line = listing_setup(SOURCE, {"where": "ü\n"})
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    word, _, facts = line.partition(b" ")
    assert word == b"setup"
    assert json.loads(facts) == {
        "entry": "pkg:items",
        "args": {"where": "ü\n"},
        "out": None,
        "batch": None,
        "worker": 0,
    }
    with pytest.raises(SourceProblem, match="too long"):
        listing_setup(SOURCE, {"a": "x" * (1 << 24)})


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_items_are_given_as_they_come(size: int) -> None:
    """However the stream is cut."""
    said = b'"a.jpg"\n{"row":1}\nnull\nend\n'
    listing = Listing(SOURCE)
    items = [
        item for at in range(0, len(said), size) for item in listing.feed(said[at : at + size])
    ]
    assert items == ['"a.jpg"', '{"row":1}', "null"]
    listing.close("exit code 0")


@pytest.mark.parametrize("said", [b"", b'"a"\n', b'"a"\nend', b'"end"\n'])
def test_a_listing_that_broke_off_is_not_whole(said: bytes) -> None:
    """Exit code 0 does not mean done; what the process died of is in the message."""
    listing = Listing(SOURCE)
    list(listing.feed(said))
    with pytest.raises(SourceProblem, match=r"pkg:items did not list .*: exit code 0\."):
        listing.close("exit code 0")


BAD = {
    unready(): r"pkg:items raised ValueError: no photos\n  File x",
    unready(type="EntryProblem", message="there is no module 'pkg'"): "^there is no module 'pkg'$",
    b"unready {}\n": "in no known words",
    b"unready [\n": "in no known words",
    b"\xff\n": "listed what is no item",
    b"end\n1\n": "went on after its end",
    b'"%b"\n' % (b"x" * ITEM_LIMIT): "item 1 has more than",
    b"x" * (ITEM_LIMIT + 1): "item 1 has more than",
}


@pytest.mark.parametrize("said", BAD, ids=lambda said: repr(said[:20]))
def test_what_goes_wrong_is_told(said: bytes) -> None:
    """With the function's name, and its traceback where there is one."""
    with pytest.raises(SourceProblem, match=BAD[said]):
        list(Listing(SOURCE).feed(said))


def test_a_long_traceback_is_taken_whole() -> None:
    """It may be longer than an item, and come in parts."""
    said = unready(traceback="x" * ITEM_LIMIT)
    listing = Listing(SOURCE)
    assert list(listing.feed(said[:-5])) == []
    with pytest.raises(SourceProblem, match="no photos"):
        list(listing.feed(said[-5:]))
