"""`--fresh`: old outputs get another name, and nothing else happens to them."""

import pytest

from supervisor.checkpoint import Layout
from supervisor.runner.outputs import FreshImpossible, keep_apart


def _layout(root):
    return Layout(root=root, glob="*.pt")


def _with_a_checkpoint(root):
    root.mkdir(parents=True, exist_ok=True)
    (root / "step-1.pt").write_bytes(b"old")
    return root


def test_the_folder_is_renamed_and_nothing_is_overwritten(tmp_path):
    """A name that is taken is left alone; the next number is used."""
    root = _with_a_checkpoint(tmp_path / "out")
    (tmp_path / "out.before-1").mkdir()
    assert keep_apart(_layout(root), tmp_path) == tmp_path / "out.before-2"
    assert (tmp_path / "out.before-2" / "step-1.pt").read_bytes() == b"old"
    assert not root.exists()


def test_a_link_goes_on_leading_to_where_there_is_room(tmp_path):
    """Behind the link lies a new, empty folder; a dangling link would stop the script."""
    behind = _with_a_checkpoint(tmp_path / "large-disk" / "out")
    link = tmp_path / "out"
    link.symlink_to(behind)
    kept = keep_apart(_layout(link), tmp_path)
    assert kept == behind.with_name("out.before-1")
    assert list(link.iterdir()) == []
    assert link.is_symlink()


def test_without_old_checkpoints_nothing_is_renamed(tmp_path):
    """No layout, no folder, or an empty one: there is nothing to keep apart."""
    (tmp_path / "out").mkdir()
    assert keep_apart(None, tmp_path) is None
    assert keep_apart(_layout(tmp_path / "none"), tmp_path) is None
    assert keep_apart(_layout(tmp_path / "out"), tmp_path) is None
    assert (tmp_path / "out").exists()


def test_the_jobs_own_folder_is_never_renamed(tmp_path):
    """Checkpoints beside job.yaml, or above it: refused with a way out, and left alone."""
    _with_a_checkpoint(tmp_path)
    for folder in (tmp_path, tmp_path / "jobs"):
        with pytest.raises(FreshImpossible, match=r"give checkpoint\.dir a folder"):
            keep_apart(_layout(tmp_path), folder)
    assert (tmp_path / "step-1.pt").exists()


def test_a_folder_that_cannot_be_renamed_is_said(tmp_path, monkeypatch):
    """A mount point, for example: the kernel's reason and what to do."""
    root = _with_a_checkpoint(tmp_path / "out")

    def busy(*_):
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(type(root), "rename", busy)
    with pytest.raises(FreshImpossible, match=r"Device or resource busy.*by hand"):
        keep_apart(_layout(root), tmp_path)
