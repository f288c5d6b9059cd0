"""A checkpoint of another training is refused in words, one that differs a little is not."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.unit.train.nets import (
    Augmented,
    Diary,
    Net,
    as_bytes,
    differences,
    from_bytes,
    loss,
    pieces,
    trainer_of,
)
from workers.train import resume
from workers.train.errors import Mismatch, TrainingError
from workers.train.loop import Trainer
from workers.train.pieces import Pieces
from workers.train.plan import Plan


def plan(**fields: Any) -> Plan:
    """Return a plan of a few steps."""
    return Plan.of({"steps": 5, **fields})


@pytest.fixture
def saved() -> dict[str, Any]:
    """Give the state of a training after five of five steps."""
    trainer = trainer_of(plan(), pieces)
    trainer.train()
    return from_bytes(as_bytes(trainer.state()))


def loaded(saved: dict[str, Any], make: Callable[[], Pieces] = pieces, **fields: Any) -> Trainer:
    """Load it into another training."""
    trainer = trainer_of(plan(**fields), make)
    trainer.load(saved, "ckpt/step-5")
    return trainer


class Deeper(Net):
    """The same, with one more layer, and one less."""

    def __init__(self) -> None:
        super().__init__()
        self.tail = nn.Linear(3, 3)
        del self.head


def sgd() -> Pieces:
    """Return pieces with another optimizer."""
    made = pieces()
    made.optimizer = lambda parameters: torch.optim.SGD(parameters, 0.1)
    return made


def grouped() -> Pieces:
    """Return pieces whose parameters are in two groups."""
    made = pieces()
    made.optimizer = torch.optim.AdamW(
        [{"params": part.parameters()} for part in (made.model.body, made.model.head)]
    )
    return made


def halved() -> Pieces:
    """Return pieces whose weights are of another type."""
    made = pieces()
    made.model.bfloat16()
    return made


def deeper() -> Pieces:
    """Return pieces with another model."""
    return Pieces(Deeper(), loss, lambda p: torch.optim.AdamW(p, 0.01), Augmented())


REFUSED: dict[str, tuple[Callable[[], Pieces], dict[str, Any], str]] = {
    "a layer more and one less": (
        deeper,
        {},
        (
            "2 of this model's tensors are not in it (first tail.weight); "
            "2 of its tensors are not here (first head.weight)"
        ),
    ),
    "another width": (
        lambda: pieces(width=9),
        {},
        "7 have another form (first body.0.weight: 8 x 6 float32 there, 9 x 6 float32 here)",
    ),
    "weights of another type": (halved, {}, "8 x 6 float32 there, 8 x 6 bfloat16 here"),
    "another precision": (pieces, {"precision": "bf16"}, "was trained in fp32, and this run is"),
    "another optimizer": (sgd, {}, "has the state of the optimizer AdamW, and this run's is SGD"),
    "other groups": (grouped, {}, "1 groups with [6] parameters, and this run's has 2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_another_training_is_refused(name: str, saved: dict[str, Any]) -> None:
    """The words say what differs, and nothing was changed by then."""
    make, fields, message = REFUSED[name]
    trainer = trainer_of(plan(**fields), make)
    before = from_bytes(as_bytes(trainer.state()))
    with pytest.raises(Mismatch) as raised:
        trainer.load(saved, "ckpt/step-5")
    assert message in str(raised.value)
    assert str(raised.value).startswith("ckpt/step-5 ")
    assert raised.value.kind == "bad_config"
    assert differences(trainer.state(), before) == []


def test_data_that_has_shrunk_is_refused(saved: dict[str, Any]) -> None:
    """There is no place in an epoch that is shorter than that."""
    with pytest.raises(Mismatch, match="40 samples into its epoch of 53, and the data has 40 now"):
        loaded(saved, lambda: pieces(Augmented(40)))


TOLD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "another seed": ({"seed": 9}, {}, "seed was 0 and is 9 now"),
    "another batch size": ({}, {"batch_size": 4}, "batch_size was 8 and is 4 now"),
    "other accumulation": ({"accumulate": 2}, {}, "accumulate was 1 and is 2 now"),
    "more data": ({}, {"data": Augmented(99)}, "samples_in_epoch was 53 and is 99 now"),
    "a longer run": ({"steps": 9}, {}, "was to have 5 steps and is to have 9 now"),
    "another hook": ({}, {"hooks": [Diary()]}, "nets.Diary#0 has no state in the checkpoint"),
}


@pytest.mark.parametrize("name", TOLD)
def test_what_cannot_stay_exact_is_said(
    name: str, saved: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The training goes on, and nobody can take it for the same."""
    fields, parts, message = TOLD[name]
    trainer = trainer_of(plan(**fields), lambda: pieces(**parts), parts.get("hooks", []))
    trainer.load(saved)
    assert message in capsys.readouterr().err
    assert trainer.step == 5


def test_the_same_training_goes_on_without_a_word(
    saved: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Warnings mean something."""
    assert loaded(saved).step == 5
    assert capsys.readouterr().err == ""


def test_several_hooks_of_one_class_keep_their_states() -> None:
    """The second one's is not the first one's."""
    hooks = [Diary(), Diary()]
    hooks[1].calls = 100
    trainer = trainer_of(plan(), pieces, hooks)
    trainer.train()
    others = [Diary(), Diary()]
    trainer_of(plan(), pieces, others).load(trainer.state())
    assert [hook.calls for hook in others] == [5, 105]


def test_a_file_that_is_none_is_a_bad_checkpoint(tmp_path: Path) -> None:
    """Whatever torch raises, the words name the file."""
    file = tmp_path / resume.STATE_FILE
    file.write_bytes(b"no checkpoint")
    for content in (file.read_bytes(), _bytes({"step": 3}), _bytes([1])):
        file.write_bytes(content)
        with pytest.raises(TrainingError, match=r"state\.pt") as raised:
            resume.read(tmp_path)
        assert raised.value.kind == "bad_checkpoint"


def test_a_newer_format_is_refused(tmp_path: Path, saved: dict[str, Any]) -> None:
    """It is not taken for broken: an older program meets it."""
    (tmp_path / resume.STATE_FILE).write_bytes(_bytes({**saved, "format": 2}))
    with pytest.raises(Mismatch, match="format 2"):
        resume.read(tmp_path)


def test_a_state_read_from_a_file_is_the_state(tmp_path: Path, saved: dict[str, Any]) -> None:
    """Nothing is lost on the way, and nothing but plain values and tensors is in it."""
    (tmp_path / resume.STATE_FILE).write_bytes(_bytes(saved))
    assert differences(resume.read(tmp_path), saved) == []


def _bytes(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()
