import math
from types import SimpleNamespace

import pytest
import torch

from tests.unit.train.hook_trainer import FakeRanks, FakeTrainer
from workers.train import checkpointing
from workers.train.checkpointing import Checkpoint
from workers.train.errors import TrainingError
from workers.train.snapshot import DISK, MEMORY, Snapshots, Tiers
from workers.train.writer import Writer

LIMIT_S = 20


class Clock:
    """Time as the test wants it."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        """Return it."""
        return self.now


class Saving:
    """A checkpoint hook, and what reached which tier."""

    def __init__(self, trainer, *, memory=True):
        self.trainer = trainer
        self.saved = {MEMORY: [], DISK: []}
        self.settled = []
        writer = Writer()
        tiers = Tiers(self.place(DISK), self.place(MEMORY) if memory else None)
        names = [name for name, _ in trainer.model.named_parameters()]
        self.snapshots = Snapshots(writer, tiers, torch.device("cpu"), names)
        self.hook = Checkpoint(self.snapshots, writer, trainer.plan.save, trainer.plan.snapshot_s)
        self.hook.settle = lambda: self.settled.append(trainer.step)
        self.writer = writer

    def place(self, tier):
        """Return what publishes there."""

        def publish(write, step, metrics):
            self.saved[tier].append((step, dict(metrics)))
            return None if tier == DISK else f"memory/{step}"

        return publish

    def steps(self, tier):
        """Return what was published there."""
        return [step for step, _ in self.saved[tier]]

    def step(self, clock, seconds=1.0, count=1):
        """Take steps of a second each."""
        for _ in range(count):
            clock.now += seconds
            self.trainer.stepped(self.hook)
            assert self.writer.settle(LIMIT_S)


@pytest.fixture
def clock(monkeypatch):
    """The time of the hook."""
    made = Clock()
    monkeypatch.setattr(checkpointing, "time", made)
    return made


@pytest.fixture
def make(tmp_path, clock):
    """Return a hook whose run begins."""
    made = []

    def build(*, memory=True, ranks=None, evaluate=None, evaluated=None, **plan):
        trainer = FakeTrainer(tmp_path, evaluate=evaluate, **plan)
        trainer.ranks = ranks or FakeRanks()
        saving = Saving(trainer, memory=memory)
        if evaluated is not None:
            saving.hook.evaluated = evaluated
        trainer.begin(saving.hook)
        made.append(saving)
        return saving

    yield build
    for one in made:
        one.writer.close(LIMIT_S)


def test_both_clocks_run_and_the_disk_takes_memorys_turn(make, clock):
    """Memory every 5 s, disk every 20 s, asked for at one boundary and taken at the next."""
    saving = make(snapshot_s=5, save={"every_s": 20})
    saving.step(clock, count=30)
    assert saving.steps(MEMORY) == [6, 12, 18, 21, 27]
    assert saving.steps(DISK) == [21]


def test_steps_decide_exactly(make, clock):
    """A checkpoint every 7 steps has the steps 7, 14, 21, whatever the clock says."""
    saving = make(snapshot_s=None, save={"every_s": None, "steps": 7})
    saving.step(clock, count=25)
    assert saving.steps(DISK) == [7, 14, 21]
    assert saving.trainer.states == 3


def test_without_a_memory_tier_its_clock_is_not_wound(make, clock):
    """A run without supervisor collects no state that nobody would save."""
    saving = make(memory=False, snapshot_s=5, save={"every_s": 40})
    saving.step(clock, count=50)
    assert saving.steps(MEMORY) == []
    assert saving.trainer.states == 1


def test_a_memory_tier_that_was_given_up_is_not_tried_again(make, clock):
    """Its clock stops."""
    saving = make(snapshot_s=5, save={"every_s": None})
    saving.snapshots.has_memory = False
    saving.step(clock, count=30)
    assert saving.trainer.states <= 1


def test_while_one_is_under_way_memory_is_skipped_and_the_disk_comes_later(make, clock):
    """A step that is due while the writer is busy is saved as soon as it is not."""
    saving = make(snapshot_s=5, save={"every_s": None, "steps": 10})
    saving.snapshots._under_way = 1
    saving.step(clock, count=12)
    assert saving.saved == {MEMORY: [], DISK: []}
    saving.snapshots._under_way = 0
    saving.step(clock, count=2)
    assert saving.steps(DISK) == [14]


def test_what_is_still_being_averaged_is_settled_before_a_snapshot(make, clock):
    """Lines of metrics precede the snapshot of their step."""
    saving = make(snapshot_s=None, save={"every_s": None, "steps": 10})
    saving.step(clock, count=10)
    assert saving.settled == [10]


@pytest.mark.parametrize("steps", [100, 37])
def test_a_stop_and_the_end_leave_a_checkpoint_on_disk(make, clock, steps):
    """The last step is on disk when the hook returns, once, and in no other way."""
    saving = make(snapshot_s=None, save={"every_s": None, "steps": steps})
    saving.step(clock, count=steps)
    saving.trainer.end(saving.hook)
    assert saving.steps(DISK) == [steps]


def test_a_stop_before_the_first_step_saves_nothing(make):
    """There is nothing that a start would not have."""
    saving = make()
    saving.trainer.end(saving.hook)
    assert saving.saved == {MEMORY: [], DISK: []}


def test_a_failure_saves_nothing(make, clock):
    """The state of a step that failed halfway is nobody's."""
    saving = make()
    saving.step(clock)
    saving.trainer.end(saving.hook, word="failed")
    assert saving.saved == {MEMORY: [], DISK: []}
    assert saving.trainer.states == 0


def test_every_rank_collects_the_state_at_the_same_boundaries(make, clock):
    """Another rank asks for nothing, saves nothing, and takes part in each state."""
    saving = make(ranks=FakeRanks(1, 2), snapshot_s=5, save={"every_s": None, "steps": 10})
    saving.step(clock, count=9)
    assert saving.trainer.states == 0
    saving.step(clock)
    saving.trainer.agreed = SimpleNamespace(snapshot=True, save=False, stop=False)
    saving.hook.after_step(saving.trainer)
    saving.trainer.end(saving.hook)
    assert saving.trainer.states == 3
    assert saving.saved == {MEMORY: [], DISK: []}


@pytest.mark.parametrize(("mode", "kept"), [("max", [1, 2, 6]), ("min", [1, 3, 5])])
def test_each_new_best_evaluation_is_saved_with_its_metrics(make, clock, mode, kept):
    """An evaluation that beats all before it is on disk with its own weights, others are not."""
    values = iter([0.5, 0.7, 0.4, math.nan, 0.3, 0.9, 0.9])
    saving = make(
        evaluate=lambda _: {},
        evaluated=lambda _: True,
        snapshot_s=None,
        save={"every_s": None, "best": "accuracy", "mode": mode},
    )
    trainer = saving.trainer
    for value in values:
        trainer.evaluation, trainer.evaluation_step = {"accuracy": value}, trainer.step + 1
        saving.step(clock)
    assert saving.steps(DISK) == kept
    assert all(metrics for _, metrics in saving.saved[DISK])
    state = saving.hook.state_dict()
    assert state == {"best": {"max": 0.9, "min": 0.3}[mode]}
    other = make(evaluate=lambda _: {}, save={"best": "accuracy", "mode": mode})
    other.hook.load_state_dict(state)
    trainer.evaluation = {"accuracy": 0.5}
    assert not other.hook._improves(trainer)


def test_a_checkpoint_between_evaluations_has_no_metrics(make, clock):
    """It was never measured, so it cannot be the best."""
    saving = make(snapshot_s=None, save={"every_s": None, "steps": 2})
    saving.trainer.evaluation, saving.trainer.evaluation_step = {"accuracy": 0.5}, 1
    saving.step(clock, count=2)
    assert saving.saved[DISK] == [(2, {})]


def test_a_best_one_without_an_evaluation_is_refused(make):
    """It is told before the first step what is missing."""
    with pytest.raises(TrainingError, match="returns no `evaluate`") as raised:
        make(save={"best": "accuracy"})
    assert raised.value.kind == "bad_config"
