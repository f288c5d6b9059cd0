"""The keeper over both tiers: the newest that verifies wins, wherever it lies."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.core.events import CheckpointChosen, CheckpointVerified, Event
from supervisor.journal.codec import decode, encode
from supervisor.runner.checkpoints import Keeper
from supervisor.runner.opening import OpenJob
from supervisor.runner.tiers import MemoryTier
from tests.unit.snapshots import flip, publish, steps
from tests.unit.snapshots import shm as shm  # noqa: PLC0414 - a fixture, found by its being here


class Two:
    """A keeper and the two folders that it looks after."""

    def __init__(self, job: OpenJob, disk: Path) -> None:
        layout, tier = job.settings.layout, MemoryTier.of(job)
        assert layout is not None
        assert tier is not None
        tier.environment()
        self.keeper, self.disk, self.memory = Keeper(job, layout), disk, tier.folder

    def choose(self, below: int | None = None) -> tuple[int | None, str, CheckpointChosen]:
        """The step and the tier that are chosen, and the event."""
        event = self.keeper.choose(below)[-1]
        assert isinstance(event, CheckpointChosen)
        return event.step, event.tier, event

    def told(self, events: tuple[Event, ...]) -> list[tuple[int, str, bool]]:
        """Step, tier, whether it was copied, of each that was verified."""
        seen = [one for one in events if isinstance(one, CheckpointVerified)]
        return [(one.step, one.tier, one.pinned) for one in seen]


@pytest.fixture
def two(open_a_job: Callable[..., OpenJob], shm: Path, tmp_path: Path) -> Two:
    """Give the keeper of a job whose script publishes to both tiers."""
    assert shm.is_dir()
    return Two(open_a_job(checkpoint={"preset": "session", "dir": "out"}), tmp_path / "out")


@pytest.mark.parametrize(
    ("disk", "memory", "chosen"),
    [
        ([], [], (None, "disk")),
        ([3], [], (3, "disk")),
        ([], [4], (4, "memory")),
        ([3], [4, 5], (5, "memory")),
        ([6], [4, 5], (6, "disk")),
        ([3, 5], [4, 5], (5, "disk")),
    ],
)
def test_the_newest_of_both_wins(
    two: Two, disk: list[int], memory: list[int], chosen: tuple[int | None, str]
) -> None:
    """Of two of one step that on disk does: it is the one that lasts."""
    for root, saved in ((two.disk, disk), (two.memory, memory)):
        for step in saved:
            publish(root, step)
    *found, event = two.choose()
    assert tuple(found) == chosen
    assert event.candidates == len(disk)
    if event.path is not None:
        assert Path(event.path).parent == (two.memory if chosen[1] == "memory" else two.disk)


def test_a_torn_newest_gives_way_in_whichever_tier(two: Two) -> None:
    """Torn in memory: the disk's. Torn on disk: memory's. The reasons come along."""
    publish(two.disk, 5)
    publish(two.memory, 4)
    os.truncate(publish(two.memory, 7) / "state.pt", 9)
    step, tier, event = two.choose()
    assert (step, tier) == (5, "disk")
    assert [one.step for one in event.rejected] == [7]
    assert (steps(two.memory), steps(two.disk)) == ([4], [5])
    publish(two.memory, 8)
    flip(publish(two.disk, 9) / "state.pt", 80)
    step, tier, event = two.choose()
    assert (step, tier) == (8, "memory")
    (rejected,) = event.rejected
    assert rejected.set_aside_to is not None
    assert (steps(two.memory), steps(two.disk)) == ([4, 8], [5])


def test_a_snapshot_is_news_once_and_is_not_copied(two: Two) -> None:
    """What the disk has is copied as ever; the choice tells nothing that is known."""
    publish(two.disk, 3)
    publish(two.memory, 5)
    assert two.keeper.survey(worker_lives=True) is not None, "the live look is at the disk alone"
    assert two.told(two.keeper.last_survey()) == [(5, "memory", False)]
    assert two.told(two.keeper.last_survey()) == []
    publish(two.disk, 6)
    publish(two.memory, 7)
    assert two.told(two.keeper.last_survey()) == [(6, "disk", True), (7, "memory", False)]
    assert two.told(two.keeper.choose(None)) == []
    assert [pin.step for pin in two.keeper.pins.all()] == [6]


def test_a_snapshot_older_than_the_disk_is_no_news(two: Two) -> None:
    """Nobody resumes from it."""
    publish(two.disk, 6)
    publish(two.memory, 5)
    assert two.told(two.keeper.last_survey()) == [(6, "disk", True)]


def test_the_choice_tells_first_what_it_rests_on(two: Two) -> None:
    """After a runner died there was no last look: the snapshot is told, then chosen."""
    publish(two.memory, 5)
    verified, chosen = two.keeper.choose(None)
    assert two.told((verified,)) == [(5, "memory", False)]
    assert isinstance(chosen, CheckpointChosen)
    assert chosen.written_at_s is not None


def test_a_sick_run_is_cut_back_in_both_tiers(two: Two) -> None:
    """Set aside on disk, removed from memory, and told; the run after that is news again."""
    for root, saved in ((two.disk, (3, 6)), (two.memory, (4, 7, 8))):
        for step in saved:
            publish(root, step)
    assert two.told(two.keeper.last_survey()) == [(6, "disk", True), (8, "memory", False)]
    step, tier, event = two.choose(below=6)
    assert (step, tier) == (4, "memory")
    assert sorted(one.step for one in event.rejected) == [6, 7, 8]
    assert (steps(two.memory), steps(two.disk)) == ([4], [3])
    publish(two.memory, 5)
    assert two.told(two.keeper.last_survey()) == [(3, "disk", True), (5, "memory", False)]


@pytest.mark.parametrize("on_disk", [False, True])
def test_losing_memory_falls_back_to_the_disk(two: Two, *, on_disk: bool) -> None:
    """A reboot: with one on disk it resumes there, with none there is none, and no candidate."""
    if on_disk:
        publish(two.disk, 3)
    publish(two.memory, 5)
    assert two.choose()[:2] == (5, "memory")
    shutil.rmtree(two.memory)
    step, tier, event = two.choose()
    expected = (3, "disk", 1) if on_disk else (None, "disk", 0)
    assert (step, tier, event.candidates) == expected


def test_losing_the_disk_falls_back_to_memory_or_to_the_newer_copy(two: Two) -> None:
    """Our own copy of the disk's newest comes back only if memory has nothing newer."""
    publish(two.disk, 3)
    publish(two.memory, 5)
    two.keeper.survey(worker_lives=False)
    shutil.rmtree(two.disk)
    assert two.choose()[:2] == (5, "memory")
    shutil.rmtree(two.memory)
    step, _, event = two.choose()
    assert (step, event.restored) == (3, True)


def test_what_has_no_manifest_is_no_checkpoint_of_this_job(two: Two) -> None:
    """A folder of that name by another program is not handed to a script that publishes."""
    folder = publish(two.disk, 9)
    (folder / "manifest.json").write_text('{"format": "other"}')
    publish(two.disk, 3)
    step, _, event = two.choose()
    assert step == 3
    assert "folders with a manifest" in event.rejected[0].reason


def test_a_required_manifest_of_another_program_is_fine_elsewhere(
    open_a_job: Callable[..., OpenJob], shm: Path, tmp_path: Path
) -> None:
    """A job of the user's own words may mean another manifest: its checkpoints stay good."""
    words = {"dir": "out", "glob": "step-*", "require": ["manifest.json"]}
    two = Two(open_a_job(checkpoint=words, resume={"env": {"FROM": "{path}"}}), tmp_path / "out")
    folder = publish(two.disk, 9)
    (folder / "manifest.json").write_text('{"format": "other"}')
    assert two.choose()[:2] == (9, "disk")
    assert shm.is_dir()


def test_a_name_that_is_no_text_is_told_as_text(two: Two) -> None:
    """A manifest may name a file in any bytes; the journal takes text alone."""
    name = os.fsdecode(b"weights-\xff.bin")
    (publish(two.disk, 5, {name: b"content"}) / name).unlink()
    _, _, event = two.choose()
    assert "weights-\\udcff.bin is missing" in event.rejected[0].reason
    assert decode("CheckpointChosen", encode(event)) == event
