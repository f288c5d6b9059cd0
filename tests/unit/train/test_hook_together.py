"""All ready hooks in real trainings that are cut off and go on."""

import random
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from workers import publishing
from workers.protocol import ENV_MEMORY_TIER
from workers.train import Hook, Pieces, Plan, Trainer, TrainingError, resume
from workers.train.snapshot import NonFinite

STEPS = 60


class Cut(Hook):
    """Ends a training in the middle, and asks for snapshots at its own steps."""

    def __init__(self, at, asks=()):
        self.at, self.asks = at, asks

    def after_step(self, trainer):
        """Act on the step."""
        if trainer.step in self.asks:
            trainer.ask("snapshot")
        if trainer.step == self.at:
            raise RuntimeError("cut")


class Bad(Hook):
    """Has a gradient that is not finite, whose loss was."""

    def after_backward(self, trainer):
        """Spoil it."""
        next(trainer.model.parameters()).grad[0, 0] = torch.nan


def pieces(*hooks):
    """Return a small training with dropout, and what is measured of it."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 3))
    data = TensorDataset(torch.randn(50, 4), torch.randint(3, (50,)))

    def loss(model, batch):
        value = functional.cross_entropy(model(batch[0]), batch[1])
        return value, {"twice": 2 * value.detach()}

    def evaluate(model):
        return {"accuracy": (model(data.tensors[0]).argmax(1) == data.tensors[1]).float().mean()}

    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    return Pieces(model, loss, optimizer, data, batch_size=16, evaluate=evaluate, hooks=hooks)


def plan(out, **more):
    """Return its plan, with every hook that can be asked for."""
    fields = {
        "steps": STEPS, "out": str(out), "evaluate": 7, "clip": 1.0, "snapshot_s": 1e6,
        "schedule": {"kind": "cosine", "warmup": 5},
        "save": {"every_s": None, "steps": 20, "best": "accuracy"},
    }  # fmt: skip
    return Plan.of({**fields, **more})


def newest(*folders):
    """Return the newest checkpoint of several folders."""
    found = [path for path in map(publishing.newest, folders) if path is not None]
    return max(found, key=lambda path: path.name) if found else None


def trained(out, memory, *hooks, **more):
    """Go on from the newest of both tiers, as the supervisor would choose it."""
    Path(out).mkdir(exist_ok=True)
    trainer = Trainer(plan(out, **more), pieces(*hooks))
    path = newest(Path(out) / "checkpoints", memory)
    if path is not None:
        trainer.load(resume.read(path))
    return trainer.train()


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """The job's memory tier."""
    folder = tmp_path / "memory"
    folder.mkdir()
    monkeypatch.setenv(ENV_MEMORY_TIER, str(folder))
    return folder


def same(one, two):
    """Whether two trees have the same bits."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


def test_a_training_that_was_cut_off_often_leaves_what_an_undisturbed_one_leaves(tmp_path, memory):
    """Same final state, best checkpoint, metrics and evaluations, byte for byte."""
    calm, cut = tmp_path / "calm", tmp_path / "cut"
    trained(calm, tmp_path / "none", Cut(0))
    publishing.Publisher(memory, tier="memory").remove_all()
    chance, cuts = random.Random(4), 0
    while True:
        start = 0 if (path := newest(cut / "checkpoints", memory)) is None else int(path.name[5:])
        at = start + chance.randrange(1, 14)
        asks = {start + chance.randrange(1, 8) for _ in range(2)}
        if at > STEPS:
            break
        with pytest.raises(RuntimeError, match="cut"):
            trained(cut, memory, Cut(at, asks))
        cuts += 1
    trained(cut, memory, Cut(0))
    assert cuts > 5
    for name in ("metrics.jsonl", "evaluations.jsonl"):
        assert (cut / name).read_bytes() == (calm / name).read_bytes()
    assert (calm / "metrics.jsonl").read_text().count("\n") == STEPS
    for name in (f"step-{STEPS:09d}", "best"):
        states = [resume.read(out / "checkpoints" / name) for out in (calm, cut)]
        assert same(*states)


def test_a_spoiled_gradient_is_found_and_nothing_of_it_is_saved(tmp_path, memory):
    """The checkpoint before it stays the newest, and the error names the samples."""
    out = tmp_path / "out"
    with pytest.raises(RuntimeError, match="cut"):
        trained(out, memory, Cut(21))
    before = newest(out / "checkpoints", memory)
    start = int(before.name[5:])
    with pytest.raises(NonFinite) as raised:
        trained(out, memory, Bad(), Cut(0, asks=range(100)), non_finite=50)
    assert raised.value.step in (start + 1, start + 2)
    assert len(raised.value.details["indices"]) in (16, 2)
    assert newest(out / "checkpoints", memory) == before


def test_a_full_memory_tier_costs_nothing_else(tmp_path, memory, monkeypatch, capfd):
    """One that may hold two bytes is told once; the training ends as it would."""
    monkeypatch.setenv("SUPERVISE_MEMORY_BUDGET", "2")
    trained(tmp_path / "out", memory, Cut(0, asks=range(100)))
    assert capfd.readouterr().err.count("memory") <= 3
    assert newest(tmp_path / "out" / "checkpoints").name == f"step-{STEPS:09d}"
    assert list(memory.glob("step-*")) == []


def test_tensorboard_that_is_missing_is_told_before_the_first_step(tmp_path, monkeypatch):
    """No step is done, and the kind is bad_config."""
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(TrainingError, match="pip install tensorboard"):
        trained(tmp_path / "out", tmp_path, metrics={"tensorboard": True})
    assert (tmp_path / "out" / "metrics.jsonl").read_bytes() == b""
