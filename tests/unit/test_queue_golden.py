"""A queue of any schema version, as its users have it, opens and reads for ever."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from supervisor.queue.model import Entry, Needs
from supervisor.queue.store import Queue
from tests.golden.queue.make_v1 import reading, write
from tests.unit.queue_entries import entry, submitted

GOLDEN = Path(__file__).parents[1] / "golden" / "queue"
NAMES = ["v1"]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """Give the name of each golden file in turn."""
    return str(request.param)


@pytest.fixture
def expected(name: str) -> Any:
    """Give what the golden file must read as."""
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture
def queue(tmp_path: Path, name: str) -> Iterator[Queue]:
    """Open a copy of the golden file."""
    shutil.copy(GOLDEN / f"{name}.sqlite", tmp_path / "queue.sqlite")
    opened = Queue.open(tmp_path)
    yield opened
    opened.close()


def assert_holds(found: Any, expected: Any, where: str = "it") -> None:
    """Everything that was there is still there, at any depth; a later version may only add."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert key in found, f"{where} has lost {key}"
            assert_holds(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_holds(one, other, f"{where}[{number}]")
    else:
        assert found == expected, where


def test_it_reads_as_it_did(queue: Queue, expected: Any) -> None:
    """Entries, what is not on its shelf, groups and happenings are what they were."""
    assert_holds(json.loads(json.dumps(reading(queue))), expected)


def test_it_goes_on(queue: Queue, expected: Any) -> None:
    """A newer program adds to the old file, under a number that was never used."""
    seq = queue.next_seq()
    assert seq > max(one["seq"] for one in expected["entries"])
    queue.add([submitted(seq)])
    assert queue.entries()[-1] == entry(seq)
    assert queue.happenings()[-1].seq == expected["happenings"][-1]["seq"] + 1


def test_it_has_every_field(expected: Any) -> None:
    """Each field of an entry has a value other than its default, so that losing it is seen."""
    default, full = entry(), expected["entries"][-1]
    unsaid = {one.name for one in fields(Entry) if full[one.name] == getattr(default, one.name)}
    assert unsaid <= {"uid", "name", "folder", "needs"}
    needs = {one.name for one in fields(Needs)}
    assert needs == {key for key in full["needs"] if full["needs"][key] != getattr(Needs(), key)}


def test_this_version_still_writes_the_newest_one(tmp_path: Path) -> None:
    """What is written today reads like the last golden file; else a new one is due."""
    queue = Queue.open(tmp_path)
    write(queue)
    now = json.loads(json.dumps(reading(queue)))
    queue.close()
    assert now == json.loads((GOLDEN / f"{NAMES[-1]}.json").read_text(encoding="utf-8"))
