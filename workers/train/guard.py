"""Finds a loss that is not finite, without waiting for the GPU at every step.

Owns a ring of the last losses on the device, looked at once a round, and the indices of the samples
behind them. Never changes the training. Invariant: a loss that is not finite ends the training at
most `within` steps later, before anything that came of it is published.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

import torch

from workers.train.capture import host_copy
from workers.train.hooks import FAILED, Hook, Outcome
from workers.train.snapshot import NonFinite

if TYPE_CHECKING:
    from torch import Tensor

    from workers.train.loop import Trainer
    from workers.train.writer import Writer

IN_A_ROW = 8  # with a gradient scaler, which skips steps and lowers its scale after each
INDICES = 500  # of samples, in the report


class Guard(Hook):
    """Raises NonFinite on the rank whose loss it is; also what the writer failed with."""

    def __init__(self, within: int, device: torch.device, writer: Writer) -> None:
        self._writer = writer
        self._size = max(1, (within + 1) // 2)  # looked at one round later, on a GPU
        self._ring = torch.zeros(self._size, device=device, dtype=torch.float64)
        self._slots = list(self._ring.unbind())
        self._recent: deque[tuple[int, Any]] = deque(maxlen=2 * self._size + IN_A_ROW)
        self._row = 0  # bad losses in a row, up to the last one that was looked at
        self._under_way: tuple[int, Tensor, Any] | None = None
        self._seen = 0  # the step up to which losses were looked at
        self._excused = False  # a single one is no reason not to save

    def before_train(self, trainer: Trainer) -> None:
        """Begin with this process's first step."""
        self._seen = trainer.step
        self._excused = trainer.scaler is not None

    def losses(self) -> Tensor | None:
        """Return the last losses, none of which may be bad in what is saved."""
        return None if self._excused else self._ring

    def after_step(self, trainer: Trainer) -> None:
        """Note this step's loss; look at those of a round when it is full."""
        step = trainer.step
        self._slots[step % self._size].copy_(trainer.metrics["loss"])
        self._recent.append((step, trainer.indices))
        if step % self._size == 0:
            self._look(trainer)
        try:
            self._writer.check()
        except NonFinite as found:
            self._look_before(found.step, trainer)
            details = {**found.details, "step": found.step}
            raise self._told(what=str(found), **details) from None

    def after_train(self, trainer: Trainer, outcome: Outcome) -> None:
        """Look at the last ones before they are saved."""
        if outcome.word != FAILED:
            self._look(trainer, now=True)

    def _look_before(self, step: int, trainer: Trainer) -> None:
        """Raise for a bad loss up to a step with a bad weight: that tells more about it."""
        try:
            self._look(trainer, now=True)
        except NonFinite as loss:
            if loss.step <= step:
                raise

    def _look(self, trainer: Trainer, *, now: bool = False) -> None:
        """Judge the round before, and begin to copy this one; wait for it where `now` says so."""
        self._arrived()
        if self._ring.device.type == "cuda":
            self._under_way = (trainer.step, *host_copy(self._ring))
            if now:
                self._arrived()
        elif not self._excused and bool(torch.isfinite(self._ring).all()):
            self._seen = trainer.step
        else:
            self._judge(trainer.step, self._ring)

    def _arrived(self) -> None:
        """Judge the copy that is under way."""
        if self._under_way is not None:
            (until, losses, copied), self._under_way = self._under_way, None
            copied.synchronize()
            self._judge(until, losses)

    def _judge(self, until: int, losses: Tensor) -> None:
        """Raise NonFinite for the first of the losses up to a step that nothing excuses."""
        values = losses.tolist()
        allowed = IN_A_ROW - 1 if self._excused else 0
        for step in range(max(self._seen, until - self._size) + 1, until + 1):
            value = values[step % self._size]
            self._row = 0 if math.isfinite(value) else self._row + 1
            if self._row > allowed:
                raise self._told(step, f"the loss of step {step} is {value}", loss=repr(value))
        self._seen = until

    def _told(self, step: int, what: str, **details: Any) -> NonFinite:  # noqa: ANN401 - plain
        """Return the error with the samples of the step, where they are still known."""
        indices = next((list(found) for known, found in self._recent if known == step), None)
        if indices:
            details["indices"] = indices[:INDICES]
            details["samples"] = len(indices)
            what += f"; its samples have the indices {_shortened(indices)}"
        elif indices is None:
            what += "; its samples are not known any more"
        return NonFinite(f"{what}. Nothing of it was saved", step, **details)


def _shortened(indices: list[Any]) -> str:
    shown = ", ".join(map(str, indices[:8]))
    return f"{shown}, ... ({len(indices)} in all)" if len(indices) > 8 else shown  # noqa: PLR2004 - as many as one line holds
