"""The memory tier: whose it is, how much it holds, and what becomes of its snapshots."""

import errno
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.checkpoint import DiskFull, Layout, SetAsideFailed, copying, find, verify
from supervisor.core.causes import State
from supervisor.core.events import SpaceReturned
from supervisor.core.state import JobState
from supervisor.runner import shared_memory, tiers
from supervisor.runner.opening import OpenJob
from supervisor.runner.tiers import MemoryTier, sweep
from tests.unit.snapshots import archive, flip, publish, steps
from tests.unit.snapshots import shm as shm  # noqa: PLC0414 - a fixture, found by its being here

GIB = 1 << 30
SESSION = {"preset": "session", "dir": "out"}


@pytest.fixture
def tier(shm: Path, state_dir: Path) -> MemoryTier:
    """Give the tier of a job, made."""
    (state_dir / "jobs" / "net-1").mkdir(parents=True)
    made = MemoryTier.at(state_dir, "net-1")
    made.environment()
    return made


@pytest.fixture
def disk(tmp_path: Path) -> Layout:
    """Give a disk tier, not made yet."""
    return Layout(tmp_path / "out" / "checkpoints", "step-*", require=("manifest.json",))


def names(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_only_jobs_that_publish_have_one(open_a_job: Callable[..., OpenJob], shm: Path) -> None:
    """Nothing is made before a worker is to be told of it."""
    assert MemoryTier.of(open_a_job()) is None
    job = open_a_job(name="other", checkpoint=SESSION)
    assert job.settings.snapshots
    tier = MemoryTier.of(job)
    assert tier is not None
    assert list(shm.iterdir()) == []
    assert tier.environment()["SUPERVISE_MEMORY_TIER"] == str(tier.folder)


def test_the_folder_is_this_users_alone(tier: MemoryTier, shm: Path) -> None:
    """Both levels; it names its owner, and is the same folder each time."""
    for folder in (tier.folder, tier.folder.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert tier.folder.parent == shm / f"supervise-{os.geteuid()}"
    assert '"job": "net-1"' in (tier.folder / "owner").read_text()
    kept = publish(tier.folder, 5)
    tier.environment()
    assert kept.exists()


def _others(folder: Path) -> None:
    os.chown(folder, 12345, -1)


def _open(folder: Path) -> None:
    folder.chmod(0o755)


def _link(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))
    folder.symlink_to("elsewhere")


def _file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.touch(0o600)


@pytest.mark.parametrize("level", ["user", "job"])
@pytest.mark.parametrize(
    ("attack", "words"),
    [
        pytest.param(
            _others,
            "belongs to user 12345",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away"),
        ),
        (_open, r"may be used by others \(mode 755\)"),
        (_link, "is no folder"),
        (_file, "is no folder"),
    ],
)
def test_a_folder_that_is_not_to_be_trusted_is_not_used(
    tier: MemoryTier, attack: Callable[[Path], None], words: str, level: str
) -> None:
    """Nothing in it is read, promoted or removed, and the reason says what is to be done."""
    publish(tier.folder, 5)
    attack(tier.folder if level == "job" else tier.folder.parent)
    before = os.path.lexists(tier.folder)
    with pytest.raises(OSError, match=words):
        tier.environment()
    assert tier.choose(None) == (None, ())
    tier.clean()
    sweep()
    assert os.path.lexists(tier.folder) == before


def test_no_tmpfs_no_tier(tier: MemoryTier, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder on a disk would be written to every few seconds."""
    monkeypatch.setattr(shared_memory, "ROOT", Path("/proc"))
    with pytest.raises(OSError, match="/proc is no tmpfs"):
        tier.environment()


def test_equal_paths_in_another_container_are_another_job(
    shm: Path, state_dir: Path, tier: MemoryTier
) -> None:
    """Containers may share /dev/shm: the state folder's inode tells them apart."""
    state_dir.rename(state_dir.with_name("first"))
    (state_dir / "jobs" / "net-1").mkdir(parents=True)
    other = MemoryTier.at(state_dir, "net-1")
    assert other.folder != tier.folder
    assert other.folder.parent == shm / f"supervise-{os.geteuid()}"
    publish(tier.folder, 5)
    sweep()
    assert steps(tier.folder) == [5], "the first one's state folder is only out of sight"
    os.utime(tier.folder, (time.time() - 90_000,) * 2)
    sweep()
    assert not tier.folder.exists()


def test_a_tier_that_names_another_job_is_left_alone(tier: MemoryTier) -> None:
    """Two jobs whose digits are equal, for example."""
    publish(tier.folder, 5)
    (tier.folder / "owner").write_text("somebody else")
    with pytest.raises(OSError, match="belongs to another job: somebody else"):
        tier.environment()
    assert tier.newest() is None
    tier.clean()
    assert steps(tier.folder) == [5]


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ((8 * GIB, 100 * GIB, None), 4 * GIB),  # half of the tmpfs
        ((64 * GIB, 16 * GIB, None), 4 * GIB),  # a quarter of what the host can give
        ((64 * GIB, 64 * GIB, 8 * GIB), 2 * GIB),  # a quarter of what the job may use
        ((0, 64 * GIB, None), 0),
    ],
)
def test_the_budget_is_the_least_of_three(
    tier: MemoryTier,
    monkeypatch: pytest.MonkeyPatch,
    figures: tuple[int, int, int | None],
    expected: int,
) -> None:
    """Free room of the tmpfs, memory of the host, memory of the job."""
    monkeypatch.setattr(tiers, "free_bytes", lambda _: figures[0])
    monkeypatch.setattr(tiers, "available_bytes", lambda: figures[1])
    tier.memory_bytes = figures[2]
    assert tier.environment()["SUPERVISE_MEMORY_BUDGET"] == str(expected)


def test_the_budget_counts_what_lies_there_already(
    tier: MemoryTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second attempt may hold as much as the first: its snapshots take the place of those."""
    publish(tier.folder, 5, {"state.pt": archive(bytes(1 << 20))})
    own = find(tier.layout).found[0].fingerprint.size_bytes
    monkeypatch.setattr(tiers, "free_bytes", lambda _: (4 << 20) - own)
    monkeypatch.setattr(tiers, "available_bytes", lambda: GIB - own)
    assert tier.budget_bytes() == 2 << 20


def test_what_killed_writers_left_is_removed(tier: MemoryTier) -> None:
    """Before the next worker: half a snapshot would take room from whole ones."""
    keep = [publish(tier.folder, 5)]
    for name in (".step-000000006.999999999-1.partial", ".step-000000004.supervise-removed"):
        publish(tier.folder, 9).rename(tier.folder / name)
    alive = tier.folder / f".step-000000007.{os.getpid()}.partial"
    publish(tier.folder, 9).rename(alive)
    tier.environment()
    kept = sorted(path for path in tier.folder.iterdir() if path.is_dir())
    assert kept == sorted([alive, *keep])


def test_bad_ones_are_removed_and_told_by_the_choice_alone(tier: MemoryTier) -> None:
    """Torn and flipped newest ones give way to the one before; a mere look removes nothing."""
    for step in (5, 6, 7, 8):
        publish(tier.folder, step)
    os.truncate(tier.folder / "step-000000008" / "state.pt", 9)
    flip(tier.folder / "step-000000007" / "state.pt", 80)
    newest = tier.newest()
    assert newest is not None
    assert (newest.step, steps(tier.folder)) == (6, [5, 6, 7, 8])
    chosen, rejected = tier.choose(None)
    assert chosen is not None
    assert (chosen.step, steps(tier.folder)) == (6, [5, 6])
    assert [(one.step, one.set_aside_to) for one in rejected] == [(8, None), (7, None)]
    assert "published with" in rejected[0].reason
    assert all("removed from memory" in one.reason for one in rejected)


def test_snapshots_of_a_sick_run_are_removed(tier: MemoryTier) -> None:
    """From the ceiling up; the one below it is good."""
    for step in (5, 6, 7):
        publish(tier.folder, step)
    chosen, rejected = tier.choose(6)
    assert chosen is not None
    assert (chosen.step, steps(tier.folder)) == (5, [5])
    assert all("resumes from an earlier checkpoint" in one.reason for one in rejected)


def test_one_of_a_newer_version_is_left(tier: MemoryTier) -> None:
    """It may be good for somebody: not used, not removed."""
    folder = publish(tier.folder, 5)
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"version":1', '"version":2'))
    chosen, (rejected,) = tier.choose(None)
    assert (chosen, steps(tier.folder)) == (None, [5])
    assert "newer supervise" in rejected.reason


def test_the_folder_may_vanish_at_any_moment(
    tier: MemoryTier, disk: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reboot, or a person: before a look, and in the middle of one."""
    publish(tier.folder, 5)
    look = verify

    def vanishing(*args: object, **kwargs: object) -> object:
        shutil.rmtree(tier.folder)
        return look(*args, **kwargs)  # type: ignore[arg-type] - handed through

    monkeypatch.setattr(tiers, "verify", vanishing)
    assert tier.choose(None) == (None, ())
    assert tier.newest() is None
    assert tier.promote(disk) is None
    tier.clean()
    shutil.rmtree(tier.folder.parent)
    assert tier.choose(None) == (None, ())
    sweep()
    tier.environment()
    assert tier.folder.is_dir()


def test_a_snapshot_is_read_once_between_two_attempts(
    tier: MemoryTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look after the end and the choice share it; one that changed since is read again."""
    folder = publish(tier.folder, 5)
    read = []
    look = verify

    def counted(*args: object, **kwargs: object) -> object:
        read.append(args)
        return look(*args, **kwargs)  # type: ignore[arg-type] - handed through

    monkeypatch.setattr(tiers, "verify", counted)
    monkeypatch.setattr(tiers, "_TICKS_NS", 0)
    assert tier.newest() is not None
    assert tier.choose(None)[0] is not None
    assert len(read) == 1
    flip(folder / "state.pt", 80)
    assert tier.choose(None)[0] is None
    assert len(read) == 2


def test_one_written_this_very_moment_is_not_remembered(
    tier: MemoryTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of a tmpfs is coarse: a change within the same tick would not show."""
    folder = publish(tier.folder, 5)
    monkeypatch.setattr(tiers, "_TICKS_NS", 3_600_000_000_000)
    assert tier.newest() is not None
    times = (folder / "state.pt").stat()
    flip(folder / "state.pt", 80)
    os.utime(folder / "state.pt", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert tier.newest() is None


def test_the_newest_snapshot_goes_to_the_disk(tier: MemoryTier, disk: Layout) -> None:
    """Whole, under its own name, with the link that people look for; the memory one stays."""
    publish(disk.root, 3)
    publish(tier.folder, 5)
    flip(publish(tier.folder, 6) / "state.pt", 80)
    target = tier.promote(disk)
    assert target == disk.root / "step-000000005"
    assert [verify(one, disk).ok for one in find(disk).found] == [True, True]
    assert (disk.root / "last").readlink() == Path("step-000000005")
    assert names(disk.root) == ["last", "step-000000003", "step-000000005"]
    assert 5 in steps(tier.folder)


@pytest.mark.parametrize("step", [5, 6])
def test_nothing_on_disk_that_verifies_is_replaced(
    tier: MemoryTier, disk: Layout, step: int
) -> None:
    """The same step, or a later one, is there: it stands as it was."""
    before = publish(disk.root, step, {"state.pt": archive(b"the disk's own")})
    publish(tier.folder, 5)
    assert tier.promote(disk) is None
    assert names(disk.root) == [before.name]
    assert b"the disk's own" in (before / "state.pt").read_bytes()


def test_a_bad_one_in_its_place_is_set_aside(tier: MemoryTier, disk: Layout) -> None:
    """As anywhere on disk; a bad later one does not keep the snapshot from going there."""
    flip(publish(disk.root, 5) / "state.pt", 80)
    os.truncate(publish(disk.root, 9) / "state.pt", 80)
    publish(tier.folder, 5)
    assert tier.promote(disk) == disk.root / "step-000000005"
    assert sum(verify(one, disk).ok for one in find(disk).found) == 1
    assert (disk.root / ".set-aside" / "step-000000005.set-aside-1").is_dir()


def test_a_full_disk_stays_as_it_was(
    tier: MemoryTier, disk: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found before or while it is copied: told as such, nothing is left behind, nothing is lost."""
    publish(disk.root, 3)
    publish(tier.folder, 5)
    with monkeypatch.context() as patched:
        patched.setattr(copying, "free_bytes", lambda _: 100)
        with pytest.raises(OSError, match="no room in") as refused:
            tier.promote(disk)
    assert refused.value.errno == errno.ENOSPC
    assert isinstance(refused.value.__cause__, DiskFull)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            tier.promote(disk)
    assert names(disk.root) == ["step-000000003"]
    assert steps(tier.folder) == [5]
    assert tier.promote(disk) is not None


def test_a_copy_that_is_not_what_was_read_gets_no_name(
    tier: MemoryTier, disk: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read back before it is believed."""
    publish(tier.folder, 5)
    write = copying._write_all

    def flipping(descriptor: int, chunk: memoryview) -> None:
        changed = bytearray(chunk)
        changed[-1] ^= 1
        write(descriptor, memoryview(changed))

    monkeypatch.setattr(copying, "_write_all", flipping)
    with pytest.raises(OSError, match="is not whole"):
        tier.promote(disk)
    assert names(disk.root) == []


def test_a_bad_one_that_cannot_be_moved_keeps_the_snapshot_in_memory(
    tier: MemoryTier, disk: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only folder, for example: told as an error of the disk, and no copy is left behind."""
    flip(publish(disk.root, 5) / "state.pt", 80)
    publish(tier.folder, 5)

    def refuse(path: Path, _: str) -> Path:
        raise SetAsideFailed(path, "Read-only file system")

    monkeypatch.setattr(sys.modules["supervisor.checkpoint.promote"], "set_aside", refuse)
    with pytest.raises(OSError, match=r"cannot set aside .* Read-only"):
        tier.promote(disk)
    assert (names(disk.root), steps(tier.folder)) == (["step-000000005"], [5])


def test_what_others_put_beside_it_is_left(tier: MemoryTier, disk: Layout) -> None:
    """A file `last` of the user's own stays; a leftover of ours goes, whatever it is."""
    disk.root.mkdir(parents=True)
    (disk.root / "last").write_text("my own")
    (disk.root / ".step-000000004.supervise-restore").write_text("")
    publish(tier.folder, 5)
    assert tier.promote(disk) is not None
    assert (disk.root / "last").read_text() == "my own"
    assert names(disk.root) == ["last", "step-000000005"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(), "it is gone"),
        (OSError(5, "I/O error"), "cannot be removed .I/O error"),
    ],
)
def test_what_cannot_be_removed_is_told_too(
    tier: MemoryTier, monkeypatch: pytest.MonkeyPatch, error: OSError, words: str
) -> None:
    """It stops no choice."""

    def refuse(*_: object) -> None:
        raise error

    flip(publish(tier.folder, 5) / "state.pt", 80)
    monkeypatch.setattr(tiers, "delete", refuse)
    chosen, (rejected,) = tier.choose(None)
    assert chosen is None
    assert re.search(words, rejected.reason)


def test_cleaning_leaves_nothing_of_the_job(tier: MemoryTier, state_dir: Path) -> None:
    """And touches no other job's."""
    other = MemoryTier.at(state_dir, "net-2")
    other.environment()
    publish(tier.folder, 5)
    publish(other.folder, 6)
    tier.clean()
    tier.clean()
    assert (tier.folder.exists(), steps(other.folder)) == (False, [6])


def test_sweeping_takes_what_belongs_to_no_job(
    open_a_job: Callable[..., OpenJob], shm: Path, state_dir: Path
) -> None:
    """A job that is no more, and one that was done when its runner died; not one that goes on."""
    job = open_a_job(checkpoint=SESSION)
    done = MemoryTier.of(job)
    assert done is not None
    gone, going = (MemoryTier.at(state_dir, name) for name in ("gone-1", "going-1"))
    (state_dir / "jobs" / "going-1").mkdir()
    for one in (done, gone, going):
        one.environment()
    nameless = shm / f"supervise-{os.geteuid()}" / "0123456789ab-no-owner"
    nameless.mkdir(0o700)
    sweep(job)
    assert [one.folder.exists() for one in (done, gone, going)] == [True, False, True]
    job.journal.append(job.id, SpaceReturned(), replace(JobState(), phase=State.SUCCEEDED))
    sweep()
    assert done.folder.exists()
    sweep(job)
    assert [one.folder.exists() for one in (done, going)] == [False, True]
    assert nameless.exists()
    os.utime(nameless, (0, 0))
    sweep()
    assert not nameless.exists()
