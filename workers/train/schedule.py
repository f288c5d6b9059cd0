"""The learning rate as a pure function of the step.

Owns the rate of every parameter group. Keeps no state: what a group began with stands in the group
itself, as `initial_lr`, and so in every checkpoint. Invariant: the same step has the same rate,
whatever was killed before it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from workers.train.hooks import Hook

if TYPE_CHECKING:
    from workers.train.loop import Trainer
    from workers.train.plan import Schedule


def factor_at(schedule: Schedule, step: int, total: int) -> float:
    """Return what the initial rate is multiplied by for a step, counted from 0.

    The warm-up grows linearly and reaches 1 with its last step; the decay begins behind it. `floor`
    is the least factor of the decay. The cosine is that of SGDR (Loshchilov and Hutter, 2017)
    without restarts.
    """
    if step < schedule.warmup:
        return (step + 1) / schedule.warmup
    since = step - schedule.warmup
    if schedule.kind == "step" and schedule.every is not None:
        return max(schedule.floor, float(schedule.factor ** (since // schedule.every)))
    if schedule.kind == "cosine":
        part = min(1.0, since / max(1, total - schedule.warmup))
        return schedule.floor + (1 - schedule.floor) * (1 + math.cos(math.pi * part)) / 2
    return 1.0


class LearningRate(Hook):
    """Sets the rate of every group before each step."""

    def __init__(self, schedule: Schedule, optimizer: torch.optim.Optimizer) -> None:
        self._schedule = schedule
        for group in optimizer.param_groups:
            _begin(group)

    def before_step(self, trainer: Trainer) -> None:
        """Set the rates; a group that came later begins with the rate that it came with."""
        factor = factor_at(self._schedule, trainer.step, trainer.total)
        for group in trainer.optimizer.param_groups:
            if "initial_lr" not in group:
                _begin(group)
            rate = group["initial_lr"] * factor
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate


def is_constant(schedule: Schedule) -> bool:
    """Tell whether the rate never changes."""
    return schedule.kind == "constant" and schedule.warmup == 0


def _begin(group: dict[str, Any]) -> None:
    """Note the rate that a group begins with, as a number: a tensor would follow the changes."""
    group["initial_lr"] = float(group.get("initial_lr", group["lr"]))
