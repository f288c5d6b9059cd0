import errno
import threading

import pytest
import torch

from workers.train.errors import TrainingError
from workers.train.snapshot import DISK, MEMORY, STATE_FILE, NonFinite, Snapshots, Tiers
from workers.train.writer import Writer

LIMIT_S = 20


class Place:
    """A tier that keeps what is published; it can be full, or held."""

    def __init__(self, folder, said):
        self.folder, self.said = folder, said
        self.full = False
        self.open = threading.Event()
        self.open.set()
        self.steps = []

    def __call__(self, write, step, metrics):
        """Publish."""
        self.open.wait(LIMIT_S)
        path = self.folder / f"step-{step}"
        path.mkdir(parents=True)
        if self.full:
            (path / STATE_FILE).symlink_to("/dev/full")
        write(path)
        self.steps.append(step)
        self.said.append((self.folder.name, step, dict(metrics)))
        return path


class Fixture:
    """Snapshots of a state that has one weight, and what is said when they are published."""

    def __init__(self, tmp_path, **tiers):
        self.said = []
        self.disk = Place(tmp_path / "disk", self.said)
        self.memory = Place(tmp_path / "memory", self.said)
        self.writer = Writer()
        self.snapshots = Snapshots(
            self.writer,
            Tiers(self.disk, self.memory, **tiers),
            torch.device("cpu"),
            ["w"],
            [lambda: self.said.append("synced")],
        )

    def take(self, step, *tiers, weight=None, **rest):
        """Take one, and wait for it."""
        weight = torch.full((1000,), float(step)) if weight is None else weight
        state = {"step": step, "model": {"w": weight, "mask": torch.tensor([-torch.inf])}}
        self.snapshots.take(state, step, tiers, {"accuracy": 0.5}, **rest)
        return self.writer.settle(LIMIT_S)

    def loaded(self, tier, step):
        """Return what lies there."""
        path = getattr(self, tier).folder / f"step-{step}" / STATE_FILE
        return torch.load(path, weights_only=True)


@pytest.fixture
def taking(tmp_path):
    """Both tiers are there."""
    made = Fixture(tmp_path)
    yield made
    made.writer.close(LIMIT_S)


def test_memory_comes_first_and_the_logs_are_synced_before_the_disk(taking):
    """The order in which a crash of the process, and one of the host, find what they need."""
    taking.take(7, MEMORY, DISK)
    taking.writer.check()
    assert taking.said == [
        ("memory", 7, {"accuracy": 0.5}), "synced", ("disk", 7, {"accuracy": 0.5}),
    ]  # fmt: skip
    assert taking.snapshots.published == {MEMORY: 7, DISK: 7}


def test_both_tiers_hold_the_state(taking):
    """What the disk got by copying the memory's file is what was captured, and loads safely."""
    taking.take(7, MEMORY, DISK)
    taking.take(8, DISK)
    for tier, step in (("memory", 7), ("disk", 7), ("disk", 8)):
        loaded = taking.loaded(tier, step)
        assert loaded["step"] == step
        assert loaded["model"]["w"].tolist() == [step] * 1000


def test_a_memory_tier_that_vanished_does_not_cost_the_disk_its_checkpoint(taking):
    """A file that cannot be copied is written anew."""
    publish = taking.memory.__call__

    def vanishing(write, step, metrics):
        path = publish(write, step, metrics)
        (path / STATE_FILE).unlink()
        return path

    taking.snapshots._tiers = taking.snapshots._tiers._replace(memory=vanishing)
    taking.take(7, MEMORY, DISK)
    taking.writer.check()
    assert taking.loaded("disk", 7)["step"] == 7


def test_training_goes_on_meanwhile_and_the_next_waits_for_it(taking):
    """A snapshot under way is busy, keeps its values, and the one after it waits."""
    taking.memory.open.clear()
    weight = torch.ones(10)
    taking.snapshots.take({"step": 1, "model": {"w": weight}}, 1, (MEMORY,), {})
    weight.fill_(2)
    assert taking.snapshots.busy
    threading.Timer(0.05, taking.memory.open.set).start()
    taking.take(2, MEMORY, weight=weight)
    assert taking.loaded("memory", 1)["model"]["w"][0] == 1
    assert taking.loaded("memory", 2)["model"]["w"][0] == 2
    assert not taking.snapshots.busy


def test_a_full_memory_tier_is_told_once_and_training_goes_on(taking, capfd):
    """No room in memory costs the memory tier alone."""
    taking.memory.full = True
    taking.take(1, MEMORY, DISK)
    taking.take(2, MEMORY, DISK)
    taking.writer.check()
    assert taking.disk.steps == [1, 2]
    assert not taking.snapshots.has_memory
    told = capfd.readouterr().err
    assert told.count("snapshots in memory are off for this attempt") == 1
    assert "No space left on device" in told


def test_a_state_that_is_too_large_for_the_budget_is_not_tried(tmp_path, capfd):
    """Two copies must fit: the figures stand in the message."""
    taking = Fixture(tmp_path, memory_bytes=2**20)
    taking.take(1, MEMORY, DISK, weight=torch.zeros(2**20))
    taking.writer.close(LIMIT_S)
    taking.writer.check()
    assert taking.memory.steps == []
    assert taking.disk.steps == [1]
    told = capfd.readouterr().err
    assert "one has 4 MiB, two are there while one is written" in told
    assert "may hold 1 MiB" in told


def test_a_full_disk_is_raised_as_such_with_its_place(taking):
    """The training ends by disk_full, and knows which checkpoint could not be written."""
    taking.disk.full = True
    taking.take(5, DISK)
    with pytest.raises(TrainingError, match="no room for the checkpoint of step 5") as raised:
        taking.writer.check()
    assert raised.value.kind == "disk_full"
    assert raised.value.__cause__.errno == errno.ENOSPC
    assert str(taking.disk.folder) in str(raised.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64, torch.complex64])
def test_weights_that_are_not_finite_are_never_published(taking, bad, kind):
    """One bad number among a thousand is found, whatever its type."""
    weight = torch.zeros(1000, dtype=kind)
    weight[500] = bad
    taking.take(4, MEMORY, DISK, weight=weight)
    with pytest.raises(NonFinite, match="weight w is not finite after step 4") as raised:
        taking.writer.check()
    assert raised.value.kind == "non_finite"
    assert raised.value.details == {"step": 4, "weight": "w"}
    assert taking.said == []


def test_large_weights_are_finite_although_their_sum_is_not(taking):
    """A sum that overflows is no proof."""
    taking.take(4, DISK, weight=torch.full((100,), 3e38))
    taking.take(5, DISK, weight=torch.tensor([2**62, 2**62]))
    taking.writer.check()
    assert taking.disk.steps == [4, 5]


def test_a_bad_loss_keeps_a_state_from_being_saved(taking):
    """The losses up to a snapshot are judged with it, although the guard has not looked yet."""
    taking.take(4, MEMORY, losses=torch.tensor([1.0, float("nan")]))
    with pytest.raises(NonFinite, match="a loss up to step 4 is not finite"):
        taking.writer.check()
    assert taking.memory.steps == []
