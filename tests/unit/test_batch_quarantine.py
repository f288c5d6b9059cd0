"""The list of quarantined items: whole, readable by any program, and gone when there are none."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from supervisor.batch.quarantine import write_quarantine
from supervisor.host import durable as module


@dataclass(frozen=True)
class Bad:
    """A quarantined item."""

    item: str
    cause: str = "signal"
    reason: str = "killed by signal 11 (SIGSEGV)"
    detail: str = 'Traceback:\n "ü" \udce9'
    attempt: int = 2


def names(folder: Path) -> list[str]:
    """What is in a folder, hidden or not."""
    return sorted(path.name for path in folder.iterdir())


def test_a_line_tells_all_that_is_known(tmp_path: Path) -> None:
    """Plain JSON, whatever is in a name or a traceback; an item is the value itself."""
    path = tmp_path / "out" / "quarantine.jsonl"
    assert write_quarantine(path, [Bad('"c\\udce9.jpg"'), Bad('{"row":4}', attempt=3)]) == 2
    first, second = [json.loads(line) for line in path.read_bytes().decode("ascii").splitlines()]
    assert first == {
        "item": "c\udce9.jpg",
        "cause": "signal",
        "reason": "killed by signal 11 (SIGSEGV)",
        "detail": 'Traceback:\n "ü" \udce9',
        "attempt": 2,
    }
    assert (second["item"], second["attempt"]) == ({"row": 4}, 3)


def test_the_list_is_written_anew_and_removed_with_the_last(tmp_path: Path) -> None:
    """Nothing of an older list stays, and no temporary file beside it."""
    path = tmp_path / "quarantine.jsonl"
    write_quarantine(path, [Bad("1"), Bad("2")])
    write_quarantine(path, iter([Bad("2")]))
    assert [json.loads(line)["item"] for line in path.read_text().splitlines()] == [2]
    assert names(tmp_path) == ["quarantine.jsonl"]
    assert write_quarantine(path, []) == 0
    assert write_quarantine(path, []) == 0
    assert write_quarantine(tmp_path / "nowhere" / "quarantine.jsonl", []) == 0
    assert names(tmp_path) == []


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_what_cannot_be_written_leaves_the_old_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The disk's error comes through, the list that was there stands, and no part of another."""
    path = tmp_path / "quarantine.jsonl"
    write_quarantine(path, [Bad("1")])
    before = path.read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os if call == "fsync" else Path, call, refuse)
    with pytest.raises(OSError, match="No space"):
        write_quarantine(path, [Bad("2")])
    assert names(tmp_path) == ["quarantine.jsonl"]
    assert path.read_bytes() == before


def test_a_leftover_of_a_killed_writer_is_no_obstacle(tmp_path: Path) -> None:
    """Also where somebody put a link in its place: what it points to is not written to."""
    innocent = tmp_path / "innocent"
    innocent.write_text("mine")
    (tmp_path / ".quarantine.jsonl.part").symlink_to(innocent)
    write_quarantine(tmp_path / "quarantine.jsonl", [Bad("1")])
    assert innocent.read_text() == "mine"
    assert names(tmp_path) == ["innocent", "quarantine.jsonl"]
