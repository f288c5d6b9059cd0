"""Killed, or out of disk, at every single point of pinning and restoring."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.checkpoint import (
    DiskFull,
    Layout,
    PinFailed,
    Pins,
    Query,
    Remembered,
    RestoreFailed,
    StepFromPointer,
    choose,
    find,
    promote,
    restore,
    retain,
    verify,
)
from tests.unit.snapshots import publish

CHANGES = {
    *("open", "write", "writev", "ftruncate", "mkdir", "rmdir", "rename", "replace", "unlink"),
    *("remove", "symlink", "link", "chmod", "fchmod", "chown", "fchown", "ioctl"),
}
"""Calls that change what is on disk: between two of them every moment is the same to a reader."""

OLD, NEW = b"old" * 1000, b"new" * 2000


def killed_at(call: int, work: Callable[[], object]) -> bool:
    """Run `work` in a child that SIGKILLs itself before its `call`-th change of the disk.

    True when it was killed, False when the work ended before.
    """
    child = os.fork()
    if child == 0:
        left = call

        def count(_frame: object, event: str, function: object) -> None:
            nonlocal left
            if event == "c_call" and getattr(function, "__name__", "") in CHANGES:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(count)
        try:
            work()
        finally:
            sys.setprofile(None)
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def every_kill(prepare: Callable[[], Callable[[], object]], check: Callable[[], None]) -> int:
    """Kill freshly prepared work at its first change, its second ... until it survives."""
    call = 1
    while killed_at(call, prepare()):
        check()
        call += 1
    check()
    return call


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make fsync free: durability against power cuts is not what SIGKILL can show."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


def write_tree(path: Path, content: bytes) -> None:
    """Write a checkpoint of two files and a folder."""
    shutil.rmtree(path, ignore_errors=True)
    (path / "sub").mkdir(parents=True)
    (path / "a.bin").write_bytes(content)
    (path / "sub" / "b.bin").write_bytes(content[::-1])


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("shape", ["file", "folder"])
def test_kill_while_pinning(tmp_path: Path, shape: str) -> None:
    """Whenever the copy is interrupted, the newest pin is the old one or the new one, whole."""
    root, folder = tmp_path / "root", tmp_path / "pins"
    name = "ckpt_1.bin" if shape == "file" else "ckpt_1"
    layout = Layout(root, "ckpt_*")
    pins, target = Pins(folder), tmp_path / "out"

    def write(step: int, content: bytes) -> None:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        path = root / name.replace("1", str(step))
        path.write_bytes(content) if shape == "file" else write_tree(path, content)

    def pin() -> None:
        (found,) = find(layout).found
        pins.pin(found, verify(found, layout, worker_lives=False))

    def prepare() -> Callable[[], object]:
        shutil.rmtree(folder, ignore_errors=True)
        write(1, OLD)
        pin()
        write(2, NEW)
        return pin

    seen = set()

    def check() -> None:
        newest = pins.newest()
        assert newest is not None
        seen.add(newest.step)
        shutil.rmtree(target, ignore_errors=True)
        path = restore(newest, Layout(target, "ckpt_*"))
        whole = path if shape == "file" else path / "a.bin"
        assert whole.read_bytes() == (OLD if newest.step == 1 else NEW)
        assert shape == "file" or (path / "sub" / "b.bin").read_bytes()[::-1] == whole.read_bytes()
        pin()  # the next run
        assert [one.name for one in sorted(folder.iterdir())] == ["pin-2"]

    calls = every_kill(prepare, check)

    assert calls > 10
    assert seen == {1, 2}


@pytest.mark.usefixtures("fast")
def test_kill_while_choosing_restores_later(tmp_path: Path) -> None:
    """Whenever restoring in place is interrupted, the next choice ends at the pinned step."""
    root, folder = tmp_path / "root", tmp_path / "pins"
    layout = Layout(root, "last.bin", StepFromPointer("last.step"))
    pins = Pins(folder)

    def run() -> object:
        return choose(layout, Remembered(), pins, Query())

    def prepare() -> Callable[[], object]:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        (root / "last.bin").write_bytes(OLD)
        (root / "last.step").write_text("7\n")
        (found,) = find(layout).found
        pins.pin(found, verify(found, layout, worker_lives=False))
        (root / "last.bin").write_bytes(bytes(9000))  # the next save was torn
        (root / "last.step").write_text("8\n")
        return run

    def check() -> None:
        chosen = choose(layout, Remembered(), pins, Query()).checkpoint
        assert chosen is not None
        assert chosen.step == 7
        assert (root / "last.bin").read_bytes() == OLD
        assert (root / "last.step").read_text() == "7\n"
        names = {path.name for path in root.iterdir()}
        assert names == {"last.bin", "last.step", ".set-aside"}
        torn = [one for one in (root / ".set-aside").iterdir() if one.name.startswith("last.bin")]
        assert bytes(9000) in [one.read_bytes() for one in torn]

    assert every_kill(prepare, check) > 20


@pytest.mark.usefixtures("fast")
def test_kill_while_retaining(tmp_path: Path) -> None:
    """Whenever deletion is interrupted, no half of a checkpoint is left under its name."""
    layout = Layout(tmp_path / "root", "ckpt_*")

    def run() -> object:
        return retain(layout, find(layout).found, 1)

    def prepare() -> Callable[[], object]:
        for step in (1, 2):
            write_tree(layout.root / f"ckpt_{step}", NEW)
        return run

    def check() -> None:
        for found in find(layout).found:
            assert (found.path / "sub" / "b.bin").exists()
            assert (found.path / "a.bin").exists()
        assert find(layout).found[0].step == 2
        run()
        write_tree(layout.root / "ckpt_1", NEW)
        run()
        assert [path.name for path in layout.root.iterdir()] == ["ckpt_2"]

    assert every_kill(prepare, check) > 5


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """Mount a file system of 256 KiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small tmpfs")
    folder = Path(tempfile.mkdtemp(prefix="supervise-small-"))
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        folder.rmdir()
        pytest.skip(f"this container may not mount a tmpfs: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)
    folder.rmdir()


def test_full_disk(small_disk: Path, tmp_path: Path) -> None:
    """A copy for which there is no room is refused with the figures, and the old pin stays."""
    layout, pins = Layout(tmp_path, "ckpt_*"), Pins(small_disk / "pins")
    (tmp_path / "ckpt_1.bin").write_bytes(OLD)
    (tmp_path / "ckpt_2.bin").write_bytes(b"x" * 300_000)
    two, one = find(layout).found
    pins.pin(one, verify(one, layout, worker_lives=False))

    with pytest.raises(DiskFull, match="300000 bytes") as caught:
        pins.pin(two, verify(two, layout, worker_lives=False))

    assert caught.value.needed_bytes == 300_000
    assert 0 < caught.value.free_bytes < 256 << 10
    assert [path.name for path in pins.folder.iterdir()] == ["pin-1"]
    assert pins.all()[0].step == 1


@pytest.mark.parametrize(
    ("code", "expected"),
    [(errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EIO, PinFailed)],
)
@pytest.mark.parametrize("call", ["write", "fsync"])
def test_disk_fails_while_pinning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    expected: type[Exception],
    call: str,
) -> None:
    """A disk that fails halfway gives the typed error, no partial copy, and the old pin intact."""
    layout, pins = Layout(tmp_path, "ckpt_*"), Pins(tmp_path / "pins")
    (tmp_path / "ckpt_1.bin").write_bytes(OLD)
    (one,) = find(layout).found
    pins.pin(one, verify(one, layout, worker_lives=False))
    (tmp_path / "ckpt_2.bin").write_bytes(NEW)
    two, _ = find(layout).found
    verdict = verify(two, layout, worker_lives=False)

    def fail(*_args: object) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(expected):
            pins.pin(two, verdict)

    assert [path.name for path in pins.folder.iterdir()] == ["pin-1"]
    assert restore(pins.all()[0], Layout(tmp_path / "x", "*")).read_bytes() == OLD


@pytest.mark.parametrize(
    ("code", "expected"), [(errno.ENOSPC, DiskFull), (errno.EIO, RestoreFailed)]
)
def test_disk_fails_while_restoring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, expected: type[Exception]
) -> None:
    """A restore that cannot be written leaves the pin, and nothing half-written behind."""
    layout, pins = Layout(tmp_path / "root", "ckpt_*"), Pins(tmp_path / "pins")
    layout.root.mkdir()
    (layout.root / "ckpt_1.bin").write_bytes(OLD)
    (one,) = find(layout).found
    pin = pins.pin(one, verify(one, layout, worker_lives=False))
    (layout.root / "ckpt_1.bin").unlink()

    def fail(*_args: object) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail)
        with pytest.raises(expected):
            choose(layout, Remembered(), pins, Query())

    assert list(layout.root.iterdir()) == []
    assert restore(pin, layout).read_bytes() == OLD


@pytest.mark.usefixtures("fast")
def test_killed_while_a_snapshot_goes_to_the_disk() -> None:
    """At every point: the disk's own stay whole, the copy is whole or not there, and it goes on."""
    with tempfile.TemporaryDirectory() as folder:
        memory, disk = (Layout(Path(folder) / name, "step-*") for name in ("memory", "disk"))
        publish(memory.root, 7, {"state.pt": NEW})
        (source,) = find(memory).found

        def prepare() -> Callable[[], object]:
            shutil.rmtree(disk.root, ignore_errors=True)
            publish(disk.root, 5, {"state.pt": OLD})
            (publish(disk.root, 7, {"state.pt": OLD}) / "manifest.json").write_bytes(b"{")
            return lambda: promote(source, disk)

        def check() -> None:
            there = find(disk).found
            good = [one.step for one in there if verify(one, disk, worker_lives=False).ok]
            assert good in ([5], [7, 5])
            promote(source, disk)
            (newest, *_) = find(disk).found
            assert (newest.path / "state.pt").read_bytes() == NEW
            left = {path.name for path in disk.root.iterdir()} - {"last", ".last.supervise-write"}
            assert left == {".set-aside", "step-000000005", "step-000000007"}

        assert every_kill(prepare, check) > 10
