import json
import random

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.train.hook_trainer import FakeRanks, FakeTrainer
from workers.train.errors import TrainingError
from workers.train.evaluation import Evaluation
from workers.train.series import Logs
from workers.train.writer import Writer


@pytest.fixture
def make(tmp_path):
    """Return a trainer with its evaluation and its logs."""
    made = []

    def build(evaluate, *, every=None, **given):
        trainer = FakeTrainer(tmp_path, evaluate=evaluate, every=every, **given)
        writer = Writer()
        logs = Logs(tmp_path, writer, tensorboard=False)
        hook = Evaluation(trainer.plan, writer, logs.evaluations)
        trainer.begin(logs)
        made.append((trainer, logs))
        return trainer, hook, logs

    yield build
    for trainer, logs in made:
        trainer.end(logs, word="failed")


@pytest.mark.parametrize(
    ("plan", "steps"),
    [
        ({"total": 34, "every": 10}, [10, 20, 30, 34]),
        ({"total": 30, "every": 10}, [10, 20, 30]),
        ({"total": 30, "epochs": 3, "steps": None}, [10, 20, 30]),
        ({"total": 30, "epochs": 3, "steps": None, "every": 15}, [15, 30]),
        ({"total": 34}, [34]),
    ],
)
def test_evaluations_come_when_the_plan_says_and_at_the_end(make, plan, steps):
    """By steps where that is asked for, else by epochs; a run of steps alone once, at its end."""
    seen = []
    trainer, hook, _ = make(lambda _: {"n": seen.append(trainer.step) or 1.0}, **plan)
    for _ in range(trainer.total):
        trainer.stepped(hook)
    assert seen == steps


def test_training_does_not_notice_an_evaluation(make):
    """Random states, gradients, modes and buffers are as before, whatever is done inside."""

    def evaluate(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
        model(torch.randn(4, 2))
        torch.manual_seed(1)
        np.random.seed(1)  # noqa: NPY002 - the global generator is what is meant
        random.seed(1)
        model.train()
        return {"accuracy": torch.tensor(0.5)}

    trainer, hook, _ = make(evaluate)
    trainer.model.append(nn.Dropout(0.5))
    trainer.model[1].eval()  # frozen
    before = [buffer.clone() for buffer in trainer.model.buffers()]
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002 - as above
    random.seed(7)
    expected = (torch.rand(1).item(), np.random.rand(), random.random())  # noqa: NPY002 - as above
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002 - as above
    random.seed(7)
    trainer.step, trainer.total = 99, 100
    trainer.stepped(hook)
    assert trainer.evaluation == {"accuracy": 0.5}
    assert trainer.evaluation_step == 100
    assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected  # noqa: NPY002 - as above
    assert [module.training for module in trainer.model.modules()] == [True, True, False, True]
    assert all(torch.equal(*pair) for pair in zip(before, trainer.model.buffers(), strict=True))


def test_an_evaluation_that_raises_gives_the_modes_back(make):
    """Whoever catches it goes on with the model as it was."""
    trainer, hook, _ = make(lambda _: 1 / 0, total=1)
    with pytest.raises(ZeroDivisionError):
        trainer.stepped(hook)
    assert all(module.training for module in trainer.model.modules())


def test_a_result_is_a_line_and_is_said(make, tmp_path, capsys):
    """The file has the numbers exactly, people see them rounded."""
    trainer, hook, logs = make(lambda _: {"b": 1 / 3, "a": float("nan")}, total=1)
    trainer.stepped(hook)
    trainer.end(logs)
    text = (tmp_path / "evaluations.jsonl").read_text()
    assert text == '{"a":null,"b":0.3333333333333333,"step":1}\n'
    assert json.loads(text)["step"] == 1
    assert "evaluation after step 1: b 0.333333 a nan" in capsys.readouterr().out


def test_other_ranks_do_not_evaluate(make):
    """They know that it is due, and go on."""
    trainer, hook, _ = make(lambda _: 1 / 0, total=1)
    trainer.ranks = FakeRanks(1, 2)
    trainer.stepped(hook)
    assert hook.is_due(trainer)
    assert trainer.evaluation is None


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, "evaluate returned a NoneType; it must return numbers by name"),
        (0.5, "evaluate returned a float; it must return numbers by name"),
        ({"accuracy": "high"}, "evaluate returned no number for 'accuracy', but a str"),
        ({"accuracy": torch.zeros(2)}, "evaluate returned no number for 'accuracy', but a Tensor"),
        ({"step": 1.0}, "a metric named 'step'"),
        ({"loss": 1.0, "top5": 2.0}, "returns no such metric; there are: loss, top5"),
        ({}, "returns no such metric; there are: none"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(make, returned, words):
    """The message says what came, and what was wanted."""
    trainer, hook, _ = make(lambda _: returned, total=1, save={"best": "accuracy"})
    with pytest.raises(TrainingError) as raised:
        trainer.stepped(hook)
    assert words in str(raised.value)
    assert raised.value.kind == "bad_config"
