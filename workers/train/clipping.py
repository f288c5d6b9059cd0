"""Gradient clipping by norm.

Owns the metric `grad_norm`, the norm before it is clipped. Never waits for a GPU. Invariant: every
rank clips by the same norm, since its gradients are averaged already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from workers.train.hooks import Hook

if TYPE_CHECKING:
    from workers.train.loop import Trainer


class Clipping(Hook):
    """Scales the gradients down to a norm of at most `largest`."""

    def __init__(self, largest: float) -> None:
        self._largest = largest

    def after_backward(self, trainer: Trainer) -> None:
        """Clip, and give the norm to the metrics."""
        norm = torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), self._largest)
        trainer.metrics["grad_norm"] = norm.detach()
