"""Verdicts: other formats, the questions of time, and what is remembered."""

import os
import pickle
import time
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

from supervisor.checkpoint import (
    Fingerprint,
    Found,
    Kind,
    Layout,
    Level,
    Outcome,
    Remembered,
    Verdict,
    find,
    look,
    verify,
)
from supervisor.checkpoint.formats import check_file


def found_in(layout: Layout) -> Found:
    """Give the newest candidate."""
    return find(layout).found[0]


def write(folder: Path, content: bytes, name: str = "ckpt_1.pt", age_s: float = 100) -> Layout:
    """Write one checkpoint that has been left alone for a while."""
    path = folder / name
    path.write_bytes(content)
    then = time.time() - age_s
    os.utime(path, (then, then))
    return Layout(folder, name)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a_1.bin", b"anything", (Outcome.OK, Kind.PLAIN, Level.STABLE)),
        ("a_1.pkl", pickle.dumps({"a": [1] * 99}), (Outcome.OK, Kind.PICKLE, Level.STABLE)),
        ("a_1.pkl", pickle.dumps({"a": [1] * 99})[:-1], (Outcome.BAD, Kind.PICKLE, None)),
        ("a_1.pkl", b"\x80\x02", (Outcome.BAD, None, None)),
        ("a_1.pt", b"", (Outcome.BAD, None, None)),
        ("a_1.pt", bytes(9000), (Outcome.BAD, None, None)),
        ("a_1.any", bytes(4096) + b"x", (Outcome.BAD, None, None)),
        ("a_1.any", bytes(4095) + b"x", (Outcome.OK, Kind.PLAIN, Level.STABLE)),
        ("a_1.pt", b"P", (Outcome.BAD, None, None)),
        ("a_1.safetensors", b"anything at all", (Outcome.BAD, Kind.SAFETENSORS, None)),
    ],
)
def test_formats(
    tmp_path: Path,
    name: str,
    content: bytes,
    expected: tuple[Outcome, Kind | None, Level | None],
) -> None:
    """Each format is told by its bytes, and judged as far as it can be."""
    layout = write(tmp_path, content, name)

    verdict = verify(found_in(layout), layout)

    assert (verdict.outcome, verdict.kind, verdict.level) == expected
    assert Verdict.from_dict(verdict.to_dict()) == verdict


def test_another_kind_is_refused(tmp_path: Path) -> None:
    """A checkpoint of another kind than the job's earlier ones is bad; the same kind passes."""
    layout = write(tmp_path, b"some text that a script put there")
    found = found_in(layout)

    verdict = verify(found, layout, expect=Kind.TORCH_ZIP)

    assert verdict.outcome is Outcome.BAD
    assert "earlier checkpoints are torch archives" in verdict.reason
    assert verify(found, layout, expect=Kind.PLAIN).ok


def test_incomplete_while_a_worker_lives(tmp_path: Path) -> None:
    """What was written a moment ago and is not whole yet is changing, and bad only later."""
    for content in (b"PK\x03\x04 the rest is still to come", b"plain"):
        young = write(tmp_path, content, age_s=0)
        assert verify(found_in(young), young).changing
    layout = write(tmp_path, b"PK\x03\x04 the rest is still to come", age_s=0)
    assert verify(found_in(layout), layout, worker_lives=False).outcome is Outcome.BAD
    old = write(tmp_path, b"PK\x03\x04 the rest never came", age_s=60)
    assert verify(found_in(old), old).outcome is Outcome.BAD


def test_folder_while_a_worker_lives(tmp_path: Path) -> None:
    """A folder that is whole so far, a moment after its last file, may still get more files."""
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    with zipfile.ZipFile(folder / "model.pt", "w") as archive:
        archive.writestr("x/data.pkl", b"x")
        archive.writestr("x/version", b"3")
    layout = Layout(tmp_path, "checkpoint-*")

    assert verify(found_in(layout), layout).changing
    assert verify(found_in(layout), layout, worker_lives=False).level is Level.VERIFIED
    then = time.time() - 60
    os.utime(folder / "model.pt", (then, then))
    os.utime(folder, (then, then))
    assert verify(found_in(layout), layout).ok


def test_changed_since_found(tmp_path: Path) -> None:
    """A file that is not the one that was found is not judged."""
    layout = write(tmp_path, b"one")
    found = found_in(layout)
    write(tmp_path, b"two!")

    assert verify(found, layout, worker_lives=False).changing
    (tmp_path / "ckpt_1.pt").unlink()
    assert verify(found, layout, worker_lives=False).changing


@pytest.mark.parametrize("change", ["grows", "vanishes", "shrinks"])
def test_written_to_while_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """A write during the reading makes it changing, never bad."""
    layout = write(tmp_path, b"x" * (3 << 20))
    found = found_in(layout)
    module = import_module("supervisor.checkpoint.verify")
    real = check_file

    def check(path: Path) -> object:
        finding = real(path)
        if change == "vanishes":
            path.unlink()
        else:
            os.truncate(path, 4 << 20 if change == "grows" else 10)
        return finding

    monkeypatch.setattr(module, "check_file", check)

    assert verify(found, layout, worker_lives=False).changing


def test_unreadable_is_not_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No permission, no descriptors left, an I/O error: that says nothing of the checkpoint."""
    layout = write(tmp_path, b"x")
    found = found_in(layout)

    def refuse(*_args: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "open", refuse)
    memory = Remembered()
    verdict = look(found, layout, memory)

    assert verdict.outcome is Outcome.UNREADABLE
    assert "Too many open files" in verdict.reason
    assert memory.get(found.path, found.fingerprint) is None


def test_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A known file is not opened again; a changed one is."""
    layout = write(tmp_path, b"content")
    memory = Remembered()
    found = found_in(layout)
    settle(found, monkeypatch)
    first = look(found, layout, memory)
    real = os.open

    def refuse(*_args: object) -> int:
        raise AssertionError("the file was opened again")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        assert look(found, layout, memory) == first
    assert os.open is real
    layout = write(tmp_path, b"CONTENT")
    changed = found_in(layout)
    assert memory.get(changed.path, changed.fingerprint) is None
    assert look(found, layout, memory, worker_lives=False).changing


def settle(found: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clock be a minute after the last change."""
    now_ns = found.fingerprint.ctime_ns + 60_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: now_ns)


def test_too_fresh_to_remember(tmp_path: Path) -> None:
    """A file written within the clock's coarseness is judged, but read again next time."""
    layout = write(tmp_path, b"content", age_s=0)
    memory = Remembered()
    found = found_in(layout)

    assert look(found, layout, memory, worker_lives=False).ok
    assert memory.get(found.path, found.fingerprint) is None
    assert found.fingerprint.is_racy(found.fingerprint.ctime_ns + 1_000_000_000)
    assert not found.fingerprint.is_racy(found.fingerprint.ctime_ns + 3_000_000_000)


def test_expectation_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked at one time does not spoil the answer to another question."""
    layout = write(tmp_path, b"content")
    found, memory = found_in(layout), Remembered()
    settle(found, monkeypatch)

    assert not look(found, layout, memory, expect=Kind.TORCH_ZIP).ok
    assert look(found, layout, memory).ok


def test_companion_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`require` and `forbid` look beside a file checkpoint, every time anew."""
    write(tmp_path, b"content")
    layout = Layout(tmp_path, "ckpt_1.pt", require=("optim*.pt",), forbid=("*.lock",))
    found, memory = found_in(layout), Remembered()
    settle(found, monkeypatch)

    assert "optim*.pt is missing" in look(found, layout, memory).reason
    (tmp_path / "optimizer.pt").write_bytes(b"")
    assert "optimizer.pt is empty" in look(found, layout, memory).reason
    (tmp_path / "optimizer.pt").write_bytes(b"x")
    assert look(found, layout, memory).ok
    (tmp_path / "x.lock").touch()
    assert "x.lock says" in look(found, layout, memory).reason


def test_memory_forgets_the_old_content() -> None:
    """One path has one remembered verdict."""
    memory, path = Remembered(), Path("/x")
    one, two = Fingerprint(1, 1, 1, 1), Fingerprint(2, 2, 2, 2)
    good = Verdict(Outcome.OK, Kind.PLAIN, Level.STABLE, "fine", 1)
    memory.put(path, one, good)
    memory.put(path, two, good)

    assert memory.get(path, one) is None
    assert memory.get(path, two) == good
