"""The pointer file, rewritten as the script would have written it."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from supervisor.checkpoint import Layout, PointerUnclear, StepFromPointer, rewrite_pointer


@dataclass(frozen=True)
class Target:
    """What to name."""

    path: Path
    step: int


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give a run's folder two levels down, with three checkpoints."""
    root = tmp_path / "work_dirs" / "x"
    (root / "global_step70").mkdir(parents=True)
    (root / "step70").mkdir()
    (root / "step70" / "model.pt").touch()
    (root / "epoch_70.pth").touch()
    return root


@pytest.mark.parametrize(
    ("old", "target", "new"),
    [
        ("global_step90", "global_step70", "global_step70"),
        ("global_step90\n", "global_step70", "global_step70\n"),
        ("epoch_9.pth", "epoch_70.pth", "epoch_70.pth"),
        ("epoch_9", "epoch_70.pth", "epoch_70"),
        ("  epoch_9.pth \r\n", "epoch_70.pth", "  epoch_70.pth \r\n"),
        ("90", "epoch_70.pth", "70"),
        ("0000090\n", "epoch_70.pth", "0000070\n"),
        ("1000000", "epoch_70.pth", "70"),
        ("{root}/epoch_9.pth", "epoch_70.pth", "{root}/epoch_70.pth"),
        ("{root}/epoch_9", "epoch_70.pth", "{root}/epoch_70"),
        ("work_dirs/x/epoch_9.pth", "epoch_70.pth", "work_dirs/x/epoch_70.pth"),
        ("./epoch_9.pth", "epoch_70.pth", "epoch_70.pth"),
        ("nowhere/epoch_9.pth", "epoch_70.pth", "nowhere/epoch_70.pth"),
        ("step90/model.pt", "step70/model.pt", "step70/model.pt"),
        ("step90", "step70/model.pt", "step70"),
        ("", "epoch_70.pth", "epoch_70.pth"),
        ("\n", "epoch_70.pth", "\nepoch_70.pth"),
        ("\0\0\0\0", "epoch_70.pth", "epoch_70.pth"),
        ("e\udcff.pth", "epoch_70.pth", "epoch_70.pth"),
    ],
)
def test_styles(root: Path, old: str, target: str, new: str) -> None:
    """Bare name, relative path, full path or number: the style is kept, white space too."""
    pointer = root / "last_checkpoint"
    pointer.write_bytes(os.fsencode(old.format(root=root)))
    pointer.chmod(0o640)

    rewrite_pointer(Layout(root, "*", pointer=Path("last_checkpoint")), Target(root / target, 70))

    assert pointer.read_bytes().decode() == new.format(root=root)
    assert pointer.stat().st_mode & 0o777 == 0o640
    assert not [path for path in root.iterdir() if path.name.endswith("write")]


def test_missing(root: Path) -> None:
    """A pointer that a crash took away is written again: DeepSpeed would start from zero."""
    layout = Layout(root, "global_step*", pointer=Path("latest"))
    rewrite_pointer(layout, Target(root / "global_step70", 70))

    assert (root / "latest").read_text() == "global_step70"


def test_step_file(root: Path) -> None:
    """An emptied pointer that holds the step is written as the step."""
    layout = Layout(root, "epoch_70.pth", StepFromPointer("latest"), pointer=Path("latest"))
    (root / "latest").touch()
    rewrite_pointer(layout, Target(root / "epoch_70.pth", 70))

    assert (root / "latest").read_text() == "70"


@pytest.mark.parametrize("absolute", [False, True])
def test_link(root: Path, absolute: bool) -> None:  # noqa: FBT001 - a test's parameter
    """A pointer that is a link is made to lead to the chosen one, in the same style."""
    pointer = root / "latest"
    pointer.symlink_to(root / "gone" if absolute else "gone")
    rewrite_pointer(Layout(root, "*", pointer=Path("latest")), Target(root / "epoch_70.pth", 70))

    assert os.fspath(pointer.readlink()) == (
        str(root / "epoch_70.pth") if absolute else "epoch_70.pth"
    )


@pytest.mark.parametrize("content", ["a\nb\n", "\x01\x02", '{\n "a": 1\n}', "x" * 100_000])
def test_unclear(root: Path, content: str) -> None:
    """What we cannot imitate is left as it is, and said."""
    (root / "latest").write_text(content)
    layout = Layout(root, "*", pointer=Path("latest"))
    with pytest.raises(PointerUnclear, match="left as it is"):
        rewrite_pointer(layout, Target(root / "epoch_70.pth", 70))

    assert (root / "latest").read_text() == content


def test_nothing_chosen(root: Path) -> None:
    """With no checkpoint left to name, the pointer is set aside; without a pointer nothing is."""
    (root / "latest").write_text("gone")
    layout = Layout(root, "*", pointer=Path("latest"))
    rewrite_pointer(layout, None)
    rewrite_pointer(layout, None)
    rewrite_pointer(Layout(root, "*"), None)
    rewrite_pointer(Layout(root, "*"), Target(root / "epoch_70.pth", 70))

    assert not (root / "latest").exists()
    assert (root / ".set-aside" / "latest.set-aside-1").read_text() == "gone"
