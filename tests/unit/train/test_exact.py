"""A training that was cut ends with the bits of one that was not."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.train.nets import (
    Augmented,
    Cut,
    Cutter,
    Diary,
    differences,
    from_bytes,
    pieces,
    plain,
    trainer_of,
)
from workers.train.pieces import Pieces
from workers.train.plan import Plan

EPOCHS = 3
CHANCE = random.SystemRandom()  # the training seeds the other one


def undisturbed(plan: Plan, make: Callable[[], Pieces]) -> tuple[Diary, dict[str, Any]]:
    """Train to the end."""
    diary = Diary()
    trainer = trainer_of(plan, make, [diary])
    assert trainer.train().word == "finished"
    return diary, trainer.state()


def cut_often(
    plan: Plan, make: Callable[[], Pieces], steps: list[int]
) -> tuple[dict[int, Any], dict[str, Any]]:
    """Train with a cut after each of the steps, every time from the saved state alone."""
    seen: dict[int, Any] = {}
    saved = None
    for step in [*steps, None]:
        diary, cutter = Diary(), Cutter(step or 0)
        trainer = trainer_of(plan, make, [diary, cutter])
        if saved is not None:
            torch.randn(CHANCE.randrange(1, 9))  # a process begins with chance of its own
            trainer.load(from_bytes(saved))
        if step is None:
            assert trainer.train().word == "finished"
        else:
            with pytest.raises(Cut):
                trainer.train()
            saved = cutter.saved
        seen |= diary.steps
    return seen, trainer.state()


CASES = {
    "in this process": ({}, {}),
    "two loader processes": ({"loader": {"workers": 2}}, {}),
    "accumulated": ({"accumulate": 3}, {}),
    "tensors alone": ({"accumulate": 2}, {"data": "plain"}),
    "in order, without the last batch": ({}, {"shuffle": False, "drop_last": True}),
    "bf16": ({"precision": "bf16"}, {}),
    "fp16 with its scaler": ({"precision": "fp16"}, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_cut_training_has_the_same_bits(name: str) -> None:
    """Weights, optimizer, random states, order of samples and metrics of every step."""
    settings, parts = CASES[name]
    plan = Plan.of({"epochs": EPOCHS, "seed": 7, **settings})

    def make() -> Pieces:
        return pieces(**{**parts, "data": plain() if "data" in parts else None})

    diary, wanted = undisturbed(plan, make)
    total = len(diary.steps)
    steps = sorted(CHANCE.sample(range(1, total), 3))
    seen, found = cut_often(plan, make, steps)
    assert seen == diary.steps, f"cut after {steps}"
    assert differences(found, wanted) == [], f"cut after {steps}"


def test_samples_do_not_depend_on_loader_processes() -> None:
    """What a dataset draws follows from seed, epoch and index, wherever it is drawn."""
    diaries = [
        undisturbed(Plan.of({"epochs": 2, "loader": {"workers": workers}}), pieces)[0].steps
        for workers in (0, 1, 2)
    ]
    assert diaries[0] == diaries[1] == diaries[2]


def test_every_epoch_has_every_sample_once_and_other_noise() -> None:
    """Shuffled anew, and augmented anew."""
    diary, _ = undisturbed(Plan.of({"epochs": 2}), pieces)
    per_epoch = len(diary.steps) // 2
    epochs = [
        [index for step in range(first, first + per_epoch) for index in diary.steps[step][0]]
        for first in (1, 1 + per_epoch)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(len(Augmented())))
    assert epochs[0] != epochs[1]
    totals = [
        sum(diary.steps[step][1]["seen"] for step in range(first, first + per_epoch))
        for first in (1, 1 + per_epoch)
    ]
    assert totals[0] != totals[1]


def test_fetching_moves_no_generator_of_the_training() -> None:
    """A training on samples that draw sees the numbers of one on samples that do not."""

    def chances(data: Any) -> list[float]:
        diary, _ = undisturbed(Plan.of({"epochs": 2}), lambda: pieces(data))
        return [values["chance"] for _, values, _ in diary.steps.values()]

    assert chances(Augmented()) == chances(plain())


def test_a_collate_function_may_draw() -> None:
    """Its chance follows from the batch, and is given back too."""

    def noisy(samples: list[Any]) -> Any:
        values, labels = torch.utils.data.default_collate(samples)
        return values + torch.randn(1) + random.random() + float(np.random.rand()), labels  # noqa: NPY002 - what people use

    def make() -> Pieces:
        return pieces(plain(), collate=noisy)

    plan = Plan.of({"epochs": 2, "loader": {"workers": 2}})
    diary, wanted = undisturbed(plan, make)
    seen, found = cut_often(Plan.of({"epochs": 2}), make, [4])
    assert seen == diary.steps
    assert differences(found["model"], wanted["model"]) == []


def test_another_seed_is_another_training() -> None:
    """The comparison above can tell two trainings apart."""
    states = [undisturbed(Plan.of({"epochs": 1, "seed": seed}), pieces)[1] for seed in (1, 2)]
    assert differences(states[0]["model"], states[1]["model"])
