"""Evaluates the model between steps, in the main rank, as if nothing had happened.

Owns when it is due and what came out last. Never moves the training: random states, gradients and
the modules' modes are as before. Invariant: whether a step is evaluated follows from its number
alone, so every rank knows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from workers import session
from workers.train.errors import TrainingError
from workers.train.hooks import Hook
from workers.train.randomness import untouched

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from workers.train.loop import Trainer
    from workers.train.plan import Plan
    from workers.train.series import Series
    from workers.train.writer import Writer


class Evaluation(Hook):
    """Calls the user's `evaluate` every so many steps, or else every epoch, and at the end."""

    def __init__(self, plan: Plan, writer: Writer, series: Series) -> None:
        self._every = plan.evaluate
        self._epochs = plan.epochs is not None
        self._best = plan.save.best
        self._writer = writer
        self._series = series

    def is_due(self, trainer: Trainer) -> bool:
        """Tell whether the step just done is one to evaluate after."""
        if trainer.step == trainer.total:
            return True
        if self._every is not None:
            return trainer.step % self._every == 0
        return self._epochs and trainer.samples == 0

    def after_step(self, trainer: Trainer) -> None:
        """Evaluate where it is due; the other ranks go on and wait for the main one."""
        evaluate = trainer.pieces.evaluate
        if evaluate is None or not trainer.ranks.is_main or not self.is_due(trainer):
            return
        with session.phase("evaluation"), evaluating(trainer.model, trainer.device):
            returned = evaluate(trainer.model)
        found = self._checked(returned)
        trainer.evaluation, trainer.evaluation_step = found, trainer.step
        self._writer.put(self._series, {**found, "step": trainer.step})
        words = " ".join(f"{name} {value:.6g}" for name, value in found.items())
        print(f"evaluation after step {trainer.step}: {words}", flush=True)

    def _checked(self, returned: object) -> dict[str, float]:
        """Return plain numbers by name. Raises TrainingError."""
        if not isinstance(returned, Mapping):
            kind = type(returned).__name__
            raise TrainingError(
                f"evaluate returned a {kind}; it must return numbers by name, such as "
                f"{{'accuracy': 0.98}}",
                kind="bad_config",
            )
        found = {}
        for name, value in returned.items():
            try:
                found[str(name)] = float(value)
            except (TypeError, ValueError, RuntimeError):
                raise TrainingError(
                    f"evaluate returned no number for {name!r}, but a {type(value).__name__}",
                    kind="bad_config",
                ) from None
        if "step" in found:
            raise TrainingError(
                "evaluate returned a metric named 'step', which is a name of the trainer's own: "
                "give it another one",
                kind="bad_config",
            )
        if self._best is not None and self._best not in found:
            there = ", ".join(found) or "none"
            raise TrainingError(
                f"train.save.best is {self._best!r}, and evaluate returns no such metric; "
                f"there are: {there}",
                kind="bad_config",
            )
        return found


@contextmanager
def evaluating(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Have every module in eval mode, without gradients and with random numbers of no consequence.

    At the end each module is in the mode it was in: parts that are frozen in eval mode stay there.
    """
    modes: list[tuple[Any, bool]] = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with untouched(device), torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
