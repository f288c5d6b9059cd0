"""A plan is refused with the field that is wrong, before anything is built."""

import dataclasses
import json

import pytest

from workers.train.errors import TrainingError
from workers.train.plan import Plan, Save, Schedule


def test_a_plan_comes_back_from_json() -> None:
    """What a supervisor writes is what the worker has."""
    plan = Plan.of(
        {
            "entry": "digits:build",
            "args": {"width": 32},
            "steps": 3000,
            "snapshot_s": None,
            "loader": {"workers": 2, "pin": False},
            "save": {"every_s": None, "steps": 100, "best": "accuracy"},
            "schedule": {"kind": "step", "every": 500},
            "clip": 1,
        }
    )
    assert Plan.from_json(json.dumps(dataclasses.asdict(plan))) == plan
    assert plan.save == Save(every_s=None, steps=100, best="accuracy")
    assert plan.schedule == Schedule("step", every=500)
    assert isinstance(plan.clip, float)


WRONG = {
    "neither of `epochs` and `steps`": {"epochs": None},
    "both of `epochs` and `steps`": {"steps": 3},
    "train.epoch: there is no such field: did you mean epochs?": {"epoch": 3},
    "train.save.kep: there is no such field: did you mean keep?": {"save": {"kep": 3}},
    "train.epochs: 0 is less than 1": {"epochs": 0},
    "train.epochs: '3' is of type str, not int or None": {"epochs": "3"},
    "train.compile: 1 is of type int, not bool": {"compile": 1},
    "train.accumulate: True is of type bool, not int": {"accumulate": True},
    "train.precision: 'fp8' is none of fp32, bf16, fp16": {"precision": "fp8"},
    "train.device: 'tpu' is none of auto, cpu, cuda": {"device": "tpu"},
    "train.schedule.every: missing": {"schedule": {"kind": "step"}},
    "train.snapshot_s: 0.0 is not above zero": {"snapshot_s": 0},
    "train.clip: nan is not above zero": {"clip": float("nan")},
    "train.loader.workers: -1 is less than 0": {"loader": {"workers": -1}},
    "train.seed: -1 is not between": {"seed": -1},
    "train.args: [] is of type list, not mapping": {"args": []},
}


@pytest.mark.parametrize("message", WRONG)
def test_a_mistake_is_named(message: str) -> None:
    """Which field, what it is, and what it must be."""
    with pytest.raises(TrainingError) as raised:
        Plan.of({"epochs": 3, **WRONG[message]})
    assert message in str(raised.value)
    assert raised.value.kind == "bad_config"


@pytest.mark.parametrize("text", ["{", "[]"])
def test_what_is_no_object_is_refused(text: str) -> None:
    """A worker started by hand with anything else says so."""
    with pytest.raises(TrainingError, match="the plan is"):
        Plan.from_json(text)
