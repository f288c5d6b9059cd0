import json

import pytest
import torch

from tests.unit.train.hook_trainer import FakeRanks, FakeTrainer
from workers.train import progress
from workers.train.clipping import Clipping
from workers.train.plan import Profile
from workers.train.profiling import Profiler
from workers.train.progress import Progress


@pytest.fixture
def trainer(tmp_path):
    """Nothing trains."""
    return FakeTrainer(tmp_path, total=40)


@pytest.fixture
def said(monkeypatch):
    """What the session heard."""
    heard = []
    monkeypatch.setattr(
        progress.session, "progress", lambda step, _, **metrics: heard.append((step, metrics))
    )
    return heard


def test_gradients_are_clipped_and_their_norm_before_is_a_metric(trainer):
    """A long gradient gets the largest norm, a short one stays; the metric tells both."""
    for length, expected in ((10.0, 2.0), (1.0, 1.0)):
        weights = list(trainer.model.parameters())
        for weight in weights:
            weight.grad = torch.zeros_like(weight)
        weights[0].grad[0, 0] = length
        trainer.metrics = {}
        Clipping(2.0).after_backward(trainer)
        assert weights[0].grad[0, 0].item() == pytest.approx(expected, rel=1e-5)
        assert trainer.metrics["grad_norm"].item() == length


def test_the_session_hears_every_step_with_the_newest_values(trainer, said):
    """Metrics and evaluation come as soon as they are known, and never under our own names."""
    hook = Progress()
    trainer.begin(hook)
    trainer.stepped(hook)
    trainer.latest = {"loss": 0.5, "step": 1, "lr": 0.1}
    trainer.stepped(hook)
    trainer.evaluation = {"accuracy": 0.9, "total": 3.0}
    trainer.stepped(hook)
    assert said == [
        (1, {}), (2, {"loss": 0.5, "lr": 0.1}), (3, {"loss": 0.5, "lr": 0.1, "accuracy": 0.9}),
    ]  # fmt: skip


def test_a_line_is_printed_now_and_then_and_at_the_end(trainer, said, capsys, monkeypatch):
    """One at once, one after five seconds, one at the end; with epoch, loss, rate and speed."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    hook = Progress()
    trainer.begin(hook)
    trainer.latest = {"loss": 0.12344}
    for _ in range(13):
        clock.now += 0.5
        trainer.stepped(hook)
    trainer.end(hook)
    assert capsys.readouterr().out.splitlines() == [
        "step 1/40 epoch 1 loss 0.1234 lr 0.5 2.0 it/s",
        "step 11/40 epoch 2 loss 0.1234 lr 0.5 2.0 it/s",
        "step 13/40 epoch 2 loss 0.1234 lr 0.5 2.0 it/s",
    ]


def test_another_rank_is_silent(trainer, said, capsys):
    """Of many ranks one speaks."""
    trainer.ranks = FakeRanks(1, 2)
    hook = Progress()
    trainer.begin(hook)
    trainer.stepped(hook)
    trainer.end(hook)
    assert (said, capsys.readouterr().out) == ([], "")


@pytest.mark.parametrize(
    ("start", "name"), [(0, "step-5.json"), (4, "step-5.json"), (5, None), (9, None)]
)
def test_the_steps_that_were_asked_for_are_profiled(trainer, tmp_path, start, name):
    """Steps 4 and 5 give one whole trace; a run that resumes behind them gives none."""
    hook = Profiler(Profile(start=3, steps=2))
    trainer.step = start
    trainer.begin(hook)
    for _ in range(8):
        trainer.stepped(hook)
    trainer.end(hook)
    found = sorted(path.name for path in tmp_path.glob("profile/*"))
    assert found == ([name] if name else [])
    if name:
        assert json.loads((tmp_path / "profile" / name).read_text())["traceEvents"]


def test_a_profile_that_is_cut_short_is_kept(trainer, tmp_path):
    """A stop in the middle leaves what was seen so far."""
    hook = Profiler(Profile(start=0, steps=50))
    trainer.begin(hook)
    trainer.stepped(hook)
    trainer.end(hook)
    assert [path.name for path in tmp_path.glob("profile/*")] == ["step-1.json"]
