"""What the next attempt resumes from."""

import os
import threading
import time
from pathlib import Path

import pytest

from supervisor.checkpoint import (
    DiskFull,
    Found,
    Kind,
    Layout,
    Pins,
    Query,
    Remembered,
    RestoreFailed,
    StepFromPointer,
    Verdict,
    choose,
    find,
    verify,
)

GOOD = b"any content that is not a torn archive"
TORN = b"PK\x03\x04 an archive that was cut off"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Give a run folder."""
    (tmp_path / "run").mkdir()
    return Layout(tmp_path / "run", "ckpt_*.pt")


@pytest.fixture
def pins(tmp_path: Path) -> Pins:
    """Give a folder of pins."""
    return Pins(tmp_path / "pins")


def write(layout: Layout, **steps: bytes) -> None:
    """Write checkpoints: `s5=GOOD`."""
    for step, content in steps.items():
        (layout.root / f"ckpt_{step[1:]}.pt").write_bytes(content)


def pin(layout: Layout, pins: Pins) -> Found:
    """Pin the newest."""
    found = find(layout).found[0]
    pins.pin(found, verify(found, layout, worker_lives=False))
    return found


def test_nothing_yet(layout: Layout, pins: Pins) -> None:
    """A fresh job has no checkpoint, and nothing was considered."""
    choice = choose(layout, Remembered(), pins, Query())

    assert (choice.checkpoint, choice.considered, choice.rejected) == (None, 0, ())


def test_newest_good_one(layout: Layout) -> None:
    """Torn ones are set aside with their reason, and the one before them is used."""
    write(layout, s8=GOOD, s9=TORN, s10=b"")

    choice = choose(layout, Remembered(), None, Query())

    assert choice.checkpoint is not None
    assert (choice.checkpoint.step, choice.checkpoint.path.name) == (8, "ckpt_8.pt")
    assert not choice.checkpoint.restored_from_pin
    assert [one.step for one in choice.rejected] == [10, 9]
    assert all(one.set_aside_to and one.set_aside_to.exists() for one in choice.rejected)
    assert "cut off" in choice.rejected[1].reason
    assert (choice.considered, choice.seen_steps) == (3, (8, 9, 10))
    again = choose(layout, Remembered(), None, Query())
    assert again.rejected == ()
    assert len(again.aside) == 2


def test_nothing_verifies(layout: Layout) -> None:
    """When nothing verifies, that is told apart from nothing being there."""
    write(layout, s1=TORN)

    choice = choose(layout, Remembered(), None, Query())

    assert (choice.checkpoint, choice.considered) == (None, 1)
    crashed = choose(layout, Remembered(), None, Query())  # before the first was journaled
    assert (crashed.considered, len(crashed.aside)) == (0, 1)


def test_bounds(layout: Layout, pins: Pins) -> None:
    """Below a step, without an excluded one: the newest that remains; nothing is set aside."""
    write(layout, s1=GOOD, s2=GOOD, s3=GOOD, s4=GOOD)
    four = pin(layout, pins)
    query = Query(
        below=4,
        excluded=frozenset({find(layout).found[1].fingerprint}),
        excluded_paths=frozenset({layout.root / "ckpt_2.pt"}),
    )

    choice = choose(layout, Remembered(), pins, query)

    assert choice.checkpoint is not None
    assert choice.checkpoint.step == 1
    assert [one.set_aside_to for one in choice.rejected] == [None, None, None]
    assert four.path.exists()


def test_hiding(layout: Layout) -> None:
    """For scripts that find their own latest, what may not be used is out of their sight."""
    write(layout, s1=GOOD, s2=GOOD)

    choice = choose(layout, Remembered(), None, Query(below=2, hide=True))

    assert [path.name for path in layout.root.glob("ckpt*")] == ["ckpt_1.pt"]
    (rejected,) = choice.rejected
    assert rejected.set_aside_to is not None
    assert rejected.set_aside_to.read_bytes() == GOOD


def test_another_kind(layout: Layout) -> None:
    """With torch archives before, a file of no format is bad although it is not empty."""
    write(layout, s1=GOOD)

    choice = choose(layout, Remembered(), None, Query(expect=Kind.TORCH_ZIP))

    assert choice.checkpoint is None
    assert "torch archives" in choice.rejected[0].reason


def test_pin_is_restored(layout: Layout, pins: Pins) -> None:
    """A pin newer than all that verifies comes back to its place and is what is resumed from."""
    write(layout, s5=GOOD)
    pin(layout, pins)
    (layout.root / "ckpt_5.pt").unlink()
    write(layout, s3=GOOD, s6=TORN)

    choice = choose(layout, Remembered(), pins, Query())

    assert choice.checkpoint is not None
    assert (choice.checkpoint.step, choice.checkpoint.restored_from_pin) == (5, True)
    assert choice.checkpoint.path.read_bytes() == GOOD
    assert choice.considered == 3
    assert choice.seen_steps == (3, 5, 6)


def test_pin_is_not_needed(layout: Layout, pins: Pins) -> None:
    """A checkpoint on disk that is as new as the pin is used as it is."""
    write(layout, s5=GOOD)
    pin(layout, pins)

    choice = choose(layout, Remembered(), pins, Query())

    assert choice.checkpoint is not None
    assert not choice.checkpoint.restored_from_pin


def test_pin_beyond_the_bound(layout: Layout, pins: Pins) -> None:
    """A pin at or above the bound is not restored."""
    write(layout, s5=GOOD)
    pin(layout, pins)
    (layout.root / "ckpt_5.pt").unlink()
    write(layout, s3=GOOD)

    choice = choose(layout, Remembered(), pins, Query(below=5))

    assert choice.checkpoint is not None
    assert choice.checkpoint.step == 3
    assert choose(layout, Remembered(), pins, Query(below=3)).checkpoint is None


def test_damaged_pins(layout: Layout, pins: Pins) -> None:
    """A damaged pin is reported and passed over; it still counts as something considered."""
    write(layout, s5=GOOD)
    pin(layout, pins)
    (layout.root / "ckpt_5.pt").unlink()
    (pinned,) = pins.all()
    pinned.payload.write_bytes(b"rot")

    choice = choose(layout, Remembered(), pins, Query())
    assert (choice.checkpoint, choice.considered) == (None, 1)
    assert "damaged" in choice.rejected[0].reason

    (pinned.folder / "manifest.json").write_bytes(b"rot")
    choice = choose(layout, Remembered(), pins, Query())
    assert (choice.checkpoint, choice.considered) == (None, 1)
    assert "damaged" in choice.rejected[0].reason


def test_pin_that_no_longer_passes(layout: Layout, pins: Pins) -> None:
    """A restored checkpoint is verified like any other, and set aside if it does not pass."""
    write(layout, s5=GOOD)
    pin(layout, pins)
    (layout.root / "ckpt_5.pt").unlink()

    choice = choose(layout, Remembered(), pins, Query(expect=Kind.SAFETENSORS))

    assert choice.checkpoint is None
    assert choice.rejected[0].set_aside_to is not None


@pytest.mark.parametrize("error", [DiskFull(1, 0, Path()), RestoreFailed(Path("x"), "I/O error")])
def test_a_newer_pin_that_cannot_be_restored(
    layout: Layout, pins: Pins, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """No older checkpoint is taken in its place: that would lose work without a word."""
    write(layout, s5=GOOD)
    pin(layout, pins)
    (layout.root / "ckpt_5.pt").unlink()
    write(layout, s3=GOOD)

    def fail(*_args: object) -> Path:
        raise error

    monkeypatch.setitem(choose.__globals__, "restore", fail)
    with pytest.raises(type(error)):
        choose(layout, Remembered(), pins, Query())


def test_in_place_writer(tmp_path: Path, pins: Pins) -> None:
    """One file, overwritten at each save: torn at step 120, it is back at step 100."""
    layout = Layout(tmp_path, "last.pt", StepFromPointer("last.step"))
    (tmp_path / "last.pt").write_bytes(GOOD)
    (tmp_path / "last.step").write_text("100")
    pin(layout, pins)
    (tmp_path / "last.pt").write_bytes(TORN)
    (tmp_path / "last.step").write_text("120")

    choice = choose(layout, Remembered(), pins, Query())

    assert choice.checkpoint is not None
    assert (choice.checkpoint.step, choice.checkpoint.path) == (100, tmp_path / "last.pt")
    assert (tmp_path / "last.step").read_text() == "100"
    assert (tmp_path / "last.pt").read_bytes() == GOOD


def test_cannot_be_set_aside(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad one in a read-only folder is passed over, and the report says so."""
    write(layout, s1=GOOD, s2=TORN)

    def refuse(*_args: object, **_more: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "rename", refuse)
    choice = choose(layout, Remembered(), None, Query())

    assert choice.checkpoint is not None
    assert choice.checkpoint.step == 1
    assert choice.rejected[0].set_aside_to is None
    assert "Read-only" in choice.rejected[0].reason


def test_unreadable_is_not_set_aside(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """What we cannot read is passed over and left where it is."""
    write(layout, s1=GOOD, s2=GOOD)
    real = os.open

    def refuse(path: Path, *args: int, **more: int) -> int:
        if str(path).endswith("ckpt_2.pt"):
            raise OSError(5, "Input/output error")
        return real(path, *args, **more)

    monkeypatch.setattr(os, "open", refuse)
    choice = choose(layout, Remembered(), None, Query())

    assert choice.checkpoint is not None
    assert choice.checkpoint.step == 1
    assert choice.rejected[0].set_aside_to is None
    assert (layout.root / "ckpt_2.pt").exists()


def test_waits_for_a_writer(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that still changes (a data mover, another host) is looked at again, then passed over."""
    write(layout, s1=GOOD, s2=GOOD)
    looks = threading.local()
    looks.count = 0
    real = choose.__globals__["look"]

    def look(found: Found, *args: object, **more: object) -> Verdict:
        looks.count += 1
        if found.step == 2 and looks.count < looks.until:
            with found.path.open("ab") as file:
                file.write(b"more")
        return real(found, *args, **more)  # type: ignore[no-any-return] - a patched function

    monkeypatch.setitem(choose.__globals__, "look", look)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    looks.until = 4
    choice = choose(layout, Remembered(), None, Query())
    assert choice.checkpoint is not None
    assert choice.checkpoint.step == 2
    assert choice.checkpoint.found.fingerprint.size_bytes == len(GOOD) + 3 * len(b"more")

    looks.count, looks.until = 0, 10**6
    choice = choose(layout, Remembered(), None, Query(patience_s=1.0))
    assert choice.checkpoint is not None
    assert choice.checkpoint.step == 1
    assert looks.count < 20
    assert choice.rejected[0].set_aside_to is None


def test_vanishing_while_chosen(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is deleted under our eyes is passed over without waiting for it."""
    write(layout, s1=GOOD, s2=GOOD)
    real = choose.__globals__["find"]

    def find_then_delete(layout: Layout) -> object:
        listing = real(layout)
        (layout.root / "ckpt_2.pt").unlink()
        return listing

    monkeypatch.setitem(choose.__globals__, "find", find_then_delete)
    choice = choose(layout, Remembered(), None, Query())

    assert choice.checkpoint is not None
    assert choice.checkpoint.step == 1
    assert [one.set_aside_to for one in choice.rejected] == [None]
