"""`--fresh`: old outputs get another name, and nothing else happens to them."""

import pytest

from supervisor.checkpoint import Layout
from supervisor.runner.outputs import FreshImpossible, empty_memory, keep_apart, save_memory
from supervisor.runner.tiers import MemoryTier
from tests.unit.snapshots import publish, steps
from tests.unit.snapshots import shm as shm  # noqa: PLC0414 - a fixture, found by its being here


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


def test_all_that_a_training_wrote_is_renamed(tmp_path):
    """Also the log of its metrics, which the new run would go on with; also without checkpoints."""
    out = tmp_path / "out"
    layout = _layout(out / "checkpoints")
    assert keep_apart(layout, tmp_path, out) is None
    (out / "checkpoints").mkdir(parents=True)
    (out / "metrics.jsonl").write_text("{}")
    assert keep_apart(layout, tmp_path, out) == tmp_path / "out.before-1"
    assert (tmp_path / "out.before-1" / "metrics.jsonl").exists()
    assert not out.exists()
    _with_a_checkpoint(tmp_path / "all" / "checkpoints")
    with pytest.raises(FreshImpossible, match=r"old outputs lie in .* give train\.out a folder"):
        keep_apart(_layout(tmp_path / "all" / "checkpoints"), tmp_path / "all", tmp_path / "all")


def test_what_was_only_in_memory_is_kept_apart_too(tmp_path, shm, state_dir):
    """The old job's newest snapshot joins its checkpoints; its memory is given back."""
    (state_dir / "jobs" / "net-1").mkdir(parents=True)
    tier = MemoryTier.at(state_dir, "net-1")
    tier.environment()
    publish(tier.folder, 5)
    root = tmp_path / "out"
    layout = Layout(root=root, glob="step-*", require=("manifest.json",))
    for job_id in ("net-1", "net-never"):
        save_memory(layout, state_dir, job_id)
    assert steps(keep_apart(layout, tmp_path)) == [5]
    for job_id in ("net-1", "net-never"):
        empty_memory(state_dir, job_id)
    assert not tier.folder.exists()
    assert len(list(shm.iterdir())) == 1


def test_a_snapshot_that_cannot_be_kept_is_not_given_up(tmp_path, shm, state_dir, monkeypatch):
    """A full disk refuses the fresh start, and says where what would be lost lies."""

    def full(*_):
        raise OSError(28, "No space left on device")

    state_dir.mkdir()
    tier = MemoryTier.at(state_dir, "net-1")
    tier.environment()
    publish(tier.folder, 5)
    monkeypatch.setattr("supervisor.runner.tiers.promote", full)
    with pytest.raises(FreshImpossible, match="No space left on device"):
        save_memory(Layout(root=tmp_path / "out", glob="step-*"), state_dir, "net-1")
    assert steps(tier.folder) == [5]
    assert shm.is_dir()
