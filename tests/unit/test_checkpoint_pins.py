"""Copies of the last verified checkpoint, and the way back."""

import errno
import fcntl
import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from supervisor.checkpoint import (
    DiskFull,
    Found,
    Kind,
    Layout,
    Level,
    Outcome,
    Pin,
    PinDamaged,
    PinFailed,
    Pins,
    RestoreFailed,
    StepFromJson,
    StepFromPointer,
    Verdict,
    find,
    restore,
    verify,
)
from supervisor.checkpoint.copying import Copying, free_bytes


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """Give an empty run folder."""
    (tmp_path / "run").mkdir()
    return Layout(tmp_path / "run", "**/ckpt_*")


@pytest.fixture
def pins(tmp_path: Path) -> Pins:
    """Give a job's folder of pins, not made yet."""
    return Pins(tmp_path / "state" / "pins")


def good(found: Found) -> Verdict:
    """Say that a checkpoint is fine."""
    return Verdict(Outcome.OK, Kind.PLAIN, Level.STABLE, "fine", found.fingerprint.size_bytes)


def pin_newest(pins: Pins, layout: Layout) -> Pin:
    """Pin the newest checkpoint."""
    found = find(layout).found[0]
    return pins.pin(found, good(found))


def test_in_place_writer_cannot_lose_it(layout: Layout, pins: Pins) -> None:
    """A script that overwrites, truncates or deletes its checkpoint leaves the copy alone."""
    path = layout.root / "ckpt_1.bin"
    path.write_bytes(b"good" * 1000)
    pin = pin_newest(pins, layout)

    with path.open("r+b") as file:
        file.write(b"half-written")
    assert restore(pin, layout).read_bytes() == b"good" * 1000
    os.truncate(path, 3)
    assert restore(pin, layout).read_bytes() == b"good" * 1000
    shutil.rmtree(layout.root)
    assert restore(pin, layout).read_bytes() == b"good" * 1000


def test_manifest_reads_back(layout: Layout, pins: Pins) -> None:
    """What a later run reads of a pin is what this one wrote."""
    name = os.fsdecode(b"ckpt_\xff\n_7")
    (layout.root / name).write_bytes(b"x" * 50)
    pin = pin_newest(pins, layout)

    assert Pins(pins.folder).all() == (pin,)
    assert (pin.step, str(pin.relative), pin.size_bytes) == (7, name, 50)
    assert pins.newest() == pin
    assert pins.damaged() == ()


def test_folder_with_everything(layout: Layout, pins: Pins) -> None:
    """A folder comes back with its files, empty folders, links and permissions."""
    path = layout.root / "deep" / "ckpt_5"
    (path / "empty").mkdir(parents=True)
    (path / "sub").mkdir()
    (path / "sub" / "a").write_bytes(b"a" * 10)
    (path / "sub" / "a").chmod(0o640)
    (path / "b").symlink_to("sub/a")
    (path / "link").symlink_to("sub", target_is_directory=True)
    pin = pin_newest(pins, layout)
    shutil.rmtree(layout.root)

    back = restore(pin, layout)

    assert back == path
    assert sorted(str(one.relative_to(path)) for one in path.rglob("*")) == [
        "b",
        "empty",
        "link",
        "sub",
        "sub/a",
    ]
    assert (path / "b").read_bytes() == b"a" * 10
    assert (path / "link").is_symlink()
    assert stat.S_IMODE((path / "sub" / "a").stat().st_mode) == 0o640


def test_only_the_newest_is_kept(layout: Layout, pins: Pins) -> None:
    """One pin is kept, or as many as asked for; the older go after the newer is complete."""
    several = Pins(pins.folder, keep=2)
    for step in (1, 2, 3):
        (layout.root / f"ckpt_{step}").write_bytes(b"x" * step)
        pin_newest(several, layout)
    assert [pin.step for pin in several.all()] == [3, 2]

    (layout.root / "ckpt_4").write_bytes(b"x")
    pin_newest(pins, layout)
    assert [pin.step for pin in pins.all()] == [4]
    assert len(list(pins.folder.iterdir())) == 1


def test_pinned_once(layout: Layout, pins: Pins, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes are not copied again."""
    (layout.root / "ckpt_1").write_bytes(b"x")
    pin = pin_newest(pins, layout)
    monkeypatch.setattr(Copying, "run", None)

    assert pin_newest(pins, layout) == pin


def test_unverified_is_refused(layout: Layout, pins: Pins) -> None:
    """A pin is a copy of something verified, always."""
    (layout.root / "ckpt_1").write_bytes(b"x")
    found = find(layout).found[0]
    bad = Verdict(Outcome.BAD, None, None, "it was cut off", 1)
    with pytest.raises(PinFailed, match="cut off"):
        pins.pin(found, bad)
    assert not pins.folder.exists()


def test_changing_while_copied(layout: Layout, pins: Pins, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint written to before or during the copy is not pinned; the old pin stays."""
    path = layout.root / "ckpt_1"
    path.write_bytes(b"one")
    pin = pin_newest(pins, layout)
    path.write_bytes(b"second")
    found = find(layout).found[0]
    path.write_bytes(b"the third")
    with pytest.raises(PinFailed) as caught:
        pins.pin(found, good(found))
    assert caught.value.changing

    found = find(layout).found[0]
    real = Copying.run

    def run(copying: Copying) -> object:
        parts = real(copying)
        path.write_bytes(b"the fourth")
        return parts

    monkeypatch.setattr(Copying, "run", run)
    with pytest.raises(PinFailed) as caught:
        pins.pin(found, good(found))
    assert caught.value.changing
    path.unlink()
    with pytest.raises(PinFailed) as caught:
        pins.pin(found, good(found))
    assert caught.value.changing
    assert pins.all() == (pin,)


def test_equal_times_do_not_prove_equal_bytes(layout: Layout, pins: Pins) -> None:
    """A copy made within the clock's coarseness of the last write is verified itself."""
    (layout.root / "ckpt_1.pt").write_bytes(b"PK\x03\x04 torn")
    found = find(layout).found[0]
    with pytest.raises(PinFailed, match="cut off") as caught:
        pins.pin(found, good(found))  # as if it had been good the moment before
    assert caught.value.changing
    assert pins.all() == ()


def test_damaged_copy_is_not_restored(layout: Layout, pins: Pins) -> None:
    """A copy whose bytes changed on the disk is found out, and what lies there is left alone."""
    path = layout.root / "ckpt_1"
    path.write_bytes(b"x" * 100)
    pin = pin_newest(pins, layout)
    path.write_bytes(b"another")
    for damage in (b"x" * 99 + b"y", b"x" * 99, b""):
        pin.payload.write_bytes(damage)
        with pytest.raises(PinDamaged):
            restore(pin, layout)
    pin.payload.unlink()
    with pytest.raises(PinDamaged, match="missing"):
        restore(pin, layout)
    assert [one.name for one in layout.root.iterdir()] == ["ckpt_1"]
    assert path.read_bytes() == b"another"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"version": 2, "crc32": 0, "pin": {}}', None]
)
def test_damaged_manifest(layout: Layout, pins: Pins, content: bytes | None) -> None:
    """A pin without a whole manifest is reported, not used; the next pin replaces it."""
    (layout.root / "ckpt_1").write_bytes(b"x")
    manifest = pin_newest(pins, layout).folder / "manifest.json"
    if content is None:
        fields = json.loads(manifest.read_bytes())
        fields["pin"]["step"] = 10**6
        content = json.dumps(fields).encode()
    manifest.write_bytes(content)

    assert pins.newest() is None
    assert len(pins.damaged()) == 1
    assert pin_newest(pins, layout).number == 2
    assert [folder.name for folder in pins.folder.iterdir()] == ["pin-2"]


def test_pins_that_cannot_be_listed(tmp_path: Path) -> None:
    """A folder of pins that cannot be listed is an error, never "no pins"."""
    (tmp_path / "file").touch()
    with pytest.raises(PinFailed, match="cannot be listed"):
        Pins(tmp_path / "file").all()


def test_leftovers_are_cleaned(layout: Layout, pins: Pins) -> None:
    """What a killed run left half-built goes; a folder of any other name stays."""
    for name in (".pin-3.partial", ".pin-1.removed", "mine"):
        (pins.folder / name).mkdir(parents=True)
    pins.clean()
    assert [folder.name for folder in pins.folder.iterdir()] == ["mine"]
    Pins(layout.root / "none").clean()


def test_restore_keeps_what_is_there(layout: Layout, pins: Pins) -> None:
    """The same bytes are left alone; others are set aside, never overwritten."""
    path = layout.root / "ckpt_1"
    path.write_bytes(b"pinned")
    pin = pin_newest(pins, layout)
    before = path.stat()
    restore(pin, layout)
    assert path.stat() == before

    path.write_bytes(b"different")
    restore(pin, layout)
    aside = layout.root / ".set-aside" / "ckpt_1.set-aside-1"
    assert (path.read_bytes(), aside.read_bytes()) == (b"pinned", b"different")
    path.unlink()
    path.mkdir()
    restore(pin, layout)
    assert path.read_bytes() == b"pinned"
    path.unlink()
    path.symlink_to("nothing")
    assert restore(pin, layout).read_bytes() == b"pinned"


def test_restore_a_folder_with_a_file_too_many(layout: Layout, pins: Pins) -> None:
    """A folder with one file more than the pin is not the same: it is replaced, not merged."""
    path = layout.root / "ckpt_1"
    path.mkdir()
    (path / "a").write_bytes(b"a")
    pin = pin_newest(pins, layout)
    (path / "is-incomplete").touch()

    restore(pin, layout)

    assert [one.name for one in path.iterdir()] == ["a"]


@pytest.mark.parametrize("source", [StepFromPointer("step"), StepFromJson("step", "s")])
def test_the_step_s_file_comes_back(
    tmp_path: Path, pins: Pins, source: StepFromPointer | StepFromJson
) -> None:
    """Where a file tells the step, it is pinned and restored along: else the step would lie."""
    run = tmp_path / "run"
    run.mkdir()
    layout = Layout(run, "last.bin", source)
    text = '{"s": %d}' if isinstance(source, StepFromJson) else "%d\n"
    (run / "last.bin").write_bytes(b"good")
    (run / "step").write_text(text % 100)
    pin = pin_newest(pins, layout)
    (run / "last.bin").write_bytes(b"")
    (run / "step").write_text(text % 120)

    restore(pin, layout)

    assert [one.step for one in find(layout).found] == [100]
    assert (run / "last.bin").read_bytes() == b"good"
    aside = run / ".set-aside" / "step.set-aside-1"
    assert aside.read_text() == text % 120
    assert Pins(pins.folder).all() == (pin,)


def test_unwritable_destination(layout: Layout, pins: Pins) -> None:
    """A destination that cannot be made is an error of its own; the pin is intact."""
    (layout.root / "deep").mkdir()
    (layout.root / "deep" / "ckpt_1").write_bytes(b"x")
    pin = pin_newest(pins, layout)
    shutil.rmtree(layout.root / "deep")
    (layout.root / "deep").write_bytes(b"a file in the way")

    with pytest.raises(RestoreFailed, match="from its pinned copy"):
        restore(pin, layout)
    assert pins.all() == (pin,)


def test_reflink(layout: Layout, pins: Pins, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system clones, bytes are not written; the checksum is the clone's."""
    (layout.root / "ckpt_1").write_bytes(b"x" * 5000)
    real_write = os.write

    def clone(writer: int, request: int, reader: int) -> int:
        assert request == 0x40049409
        os.sendfile(writer, reader, 0, 1 << 20)
        return 0

    def write(descriptor: int, content: bytes) -> int:
        assert len(content) < 5000, "the bytes were copied"
        return real_write(descriptor, content)

    monkeypatch.setattr(fcntl, "ioctl", clone)
    monkeypatch.setattr(os, "write", write)
    pin = pin_newest(pins, layout)
    monkeypatch.undo()
    (layout.root / "ckpt_1").unlink()

    assert restore(pin, layout).read_bytes() == b"x" * 5000


def test_no_space_is_seen_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: Layout
) -> None:
    """A copy that cannot fit is refused before it fills the disk that the training needs."""
    (layout.root / "ckpt_1").write_bytes(b"x" * (1 << 20))
    fields = list(os.statvfs(tmp_path))
    fields[1:5] = (1, 1 << 30, 1 << 24, 11 << 20)  # 1 GiB, of which 1 % and a little are free
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result(fields))
    assert 0 < free_bytes(tmp_path) < 1 << 20

    def write(*_args: object) -> int:
        raise AssertionError("it wrote")

    monkeypatch.setattr(os, "write", write)
    copying = Copying(layout.root / "ckpt_1", tmp_path / "copy", 1 << 20, reflinks=False)
    with pytest.raises(DiskFull, match="1048576 bytes"):
        copying.run()


def test_no_permission(layout: Layout, pins: Pins, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that may not be read is not pinned, and the error is not "changing"."""
    (layout.root / "ckpt_1").write_bytes(b"x")
    found = find(layout).found[0]

    def refuse(*_args: object) -> int:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("supervisor.checkpoint.copying.open_regular", refuse)
    with pytest.raises(PinFailed, match="Permission denied") as caught:
        pins.pin(found, good(found))
    assert not caught.value.changing


def test_verified_like_any_other(layout: Layout, pins: Pins) -> None:
    """A restored checkpoint verifies as the original did."""
    (layout.root / "ckpt_1").write_bytes(b"x")
    pin = pin_newest(pins, layout)
    (layout.root / "ckpt_1").unlink()
    restore(pin, layout)
    (found,) = find(layout).found

    assert verify(found, layout, worker_lives=False).ok
