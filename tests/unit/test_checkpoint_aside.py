"""Bad checkpoints out of sight, old ones deleted, and nothing else touched."""

import errno
import glob
import os
import re
from pathlib import Path

import pytest

from supervisor.checkpoint import (
    CheckpointError,
    Layout,
    SetAsideFailed,
    find,
    retain,
    set_aside,
)


def test_file(tmp_path: Path) -> None:
    """The bytes are kept under another name, with the reason beside them."""
    path = tmp_path / "ckpt_5.pt"
    path.write_bytes(b"torn")

    moved = set_aside(path, "it was cut off")

    assert moved == tmp_path / ".set-aside" / "ckpt_5.pt.set-aside-1"
    assert moved.read_bytes() == b"torn"
    assert not path.exists()
    why = moved.with_name(moved.name + ".why.txt").read_text()
    assert why == "ckpt_5.pt\nit was cut off\n"


def test_never_overwrites(tmp_path: Path) -> None:
    """The same name set aside again gets the next number; a stray file of that name is left."""
    (tmp_path / ".set-aside").mkdir()
    (tmp_path / ".set-aside" / "a.pt.set-aside-2").write_bytes(b"somebody's")
    moved = []
    for content in (b"one", b"two"):
        (tmp_path / "a.pt").write_bytes(content)
        moved.append(set_aside(tmp_path / "a.pt", "bad"))

    assert [path.name for path in moved] == ["a.pt.set-aside-1", "a.pt.set-aside-3"]
    assert [path.read_bytes() for path in moved] == [b"one", b"two"]
    assert (tmp_path / ".set-aside" / "a.pt.set-aside-2").read_bytes() == b"somebody's"


def test_folder_and_long_name(tmp_path: Path) -> None:
    """A folder moves whole; a name of 255 bytes is shortened, not refused."""
    path = tmp_path / ("x" * 255)
    path.mkdir()
    (path / "a").write_bytes(b"a")

    moved = set_aside(path, "bad")

    assert (moved / "a").read_bytes() == b"a"
    assert moved.name.endswith(".set-aside-1")


@pytest.mark.parametrize("absolute", [False, True])
def test_link(tmp_path: Path, absolute: bool) -> None:  # noqa: FBT001 - a test's parameter
    """Of a link the link is moved, and it still leads to the same file, which is untouched."""
    (tmp_path / "store").write_bytes(b"store")
    target = tmp_path / "store" if absolute else Path("store")
    (tmp_path / "last.pt").symlink_to(target)

    moved = set_aside(tmp_path / "last.pt", "bad")

    assert moved.is_symlink()
    assert moved.read_bytes() == b"store"
    assert not os.path.lexists(tmp_path / "last.pt")
    assert (tmp_path / "store").exists()


def test_out_of_every_script_s_sight(tmp_path: Path) -> None:
    """No way that scripts look for their latest checkpoint finds one that was set aside."""
    for name in ("checkpoint-500", "hpc_ckpt_5.ckpt", "last.pt", "step-7.pt"):
        (tmp_path / name).write_text("x")
        set_aside(tmp_path / name, "bad")

    for pattern in ("*", "checkpoint-*", "*.ckpt", "*.pt*", "**/*"):
        assert glob.glob(str(tmp_path / pattern), recursive=True) == []  # noqa: PTH207 - as scripts do
    for pattern in ("checkpoint-*", "**/*.pt", "**/*.ckpt", "*.ckpt"):
        assert list(tmp_path.glob(pattern)) == []
    names = [name for name in os.listdir(tmp_path) if "ckpt_" in name or re.search(r"\d", name)]  # noqa: PTH208 - as scripts do
    assert names == []
    assert find(Layout(tmp_path, "**/*")).found == ()


def test_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot be moved it stays, and the error says what to do."""
    (tmp_path / "a.pt").write_bytes(b"a")

    def refuse(*_args: object, **_more: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("mkdir", "rename"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, refuse)
            with pytest.raises(SetAsideFailed, match=r"Read-only file system.*make .* writable"):
                set_aside(tmp_path / "a.pt", "bad")
        assert (tmp_path / "a.pt").read_bytes() == b"a"
    assert list((tmp_path / ".set-aside").iterdir()) == []
    assert issubclass(SetAsideFailed, CheckpointError)


def test_gone_already(tmp_path: Path) -> None:
    """What is not there cannot be set aside, and leaves no note behind."""
    with pytest.raises(SetAsideFailed, match="No such file"):
        set_aside(tmp_path / "a.pt", "bad")
    assert list((tmp_path / ".set-aside").iterdir()) == []


def test_full_disk_moves_without_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk the move matters more than the reason."""
    (tmp_path / "a.pt").write_bytes(b"a")

    def full(*_args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)

    assert set_aside(tmp_path / "a.pt", "bad").read_bytes() == b"a"


def write(root: Path, *steps: int) -> Layout:
    """Make checkpoints, folders for even steps, files for odd ones."""
    for step in steps:
        path = root / f"c_{step}"
        if step % 2:
            path.write_bytes(b"x")
        else:
            path.mkdir()
            (path / "a").write_bytes(b"x")
    return Layout(root, "c_*")


def names(root: Path) -> list[str]:
    """List what is left."""
    return sorted(path.name for path in root.iterdir())


def test_retain(tmp_path: Path) -> None:
    """The newest verified ones stay; unverified ones count for nothing and are not touched."""
    layout = write(tmp_path, 1, 2, 3, 4, 5)
    verified = [found for found in find(layout).found if found.step != 4]

    deleted = retain(layout, verified, 2)

    assert sorted(path.name for path in deleted) == ["c_1", "c_2"]
    assert names(tmp_path) == ["c_3", "c_4", "c_5"]


def test_retain_spares(tmp_path: Path) -> None:
    """The one resumed from stays, and so does one that changed after it was verified."""
    layout = write(tmp_path, 1, 3, 5, 7)
    verified = find(layout).found
    (tmp_path / "c_1").write_bytes(b"written anew")

    assert retain(layout, verified, 1, tmp_path / "c_3") == [tmp_path / "c_5"]
    assert names(tmp_path) == ["c_1", "c_3", "c_7"]


def test_retain_deletes_a_link_not_its_target(tmp_path: Path) -> None:
    """A linked checkpoint is let go, what it points to is not ours."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "a").write_bytes(b"x")
    root = tmp_path / "root"
    root.mkdir()
    (root / "c_2").symlink_to(tmp_path / "store")
    layout = write(root, 4)

    retain(layout, find(layout).found, 1)

    assert names(root) == ["c_4"]
    assert (tmp_path / "store" / "a").exists()


def test_retain_keeps_one_at_least(tmp_path: Path) -> None:
    """Keeping none is refused, and an absurd number keeps all."""
    layout = write(tmp_path, 1, 2)
    with pytest.raises(ValueError, match="at least 1"):
        retain(layout, find(layout).found, 0)
    assert retain(layout, find(layout).found, 99) == []
    assert names(tmp_path) == ["c_1", "c_2"]
