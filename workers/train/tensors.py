"""Small things done with what a loss function gets and returns.

Owns the check of a loss, and the moving of a batch. Never waits for the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from workers.train.errors import TrainingError


def moved(batch: Any, device: torch.device) -> Any:  # noqa: ANN401 - any nesting of containers
    """Return a batch with its tensors on the device; what is no tensor stays as it is."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: moved(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(moved(value, device) for value in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(moved(value, device) for value in batch)
    return batch.to(device) if hasattr(batch, "to") else batch  # a batch of a class of its own


def scalar(value: Any, device: torch.device) -> Tensor:  # noqa: ANN401 - a tensor or a number
    """Return a metric as a tensor without dimensions, which keeps no graph alive."""
    if isinstance(value, Tensor):
        return value.detach() if value.dim() == 0 else value.detach().reshape(())
    return torch.full((), float(value), device=device)


def check_loss(loss: Any, more: Any, entry: str) -> None:  # noqa: ANN401 - whatever the user's function returned
    """Raise TrainingError where no gradient can be had of it, or where a metric is no number."""
    wanted = "it must return the loss, or (loss, {'metric': value, ...})"
    if not isinstance(loss, Tensor) or not isinstance(more, Mapping):
        found = type(more).__name__ if isinstance(loss, Tensor) else type(loss).__name__
        raise _wrong(entry, f"returned a {found}: {wanted}")
    if loss.dim():
        raise _wrong(entry, f"returned a tensor of shape {tuple(loss.shape)}: reduce it to a mean")
    if loss.is_complex():
        raise _wrong(entry, f"returned a complex number ({loss.dtype}): a loss is a real one")
    if not loss.requires_grad:
        raise _wrong(
            entry,
            "returned a tensor that depends on no parameter that can be trained: compute it with "
            "the model that it is given, without detach() or no_grad(), and leave requires_grad on",
        )
    for name, value in more.items():
        numbers = value.numel() if isinstance(value, Tensor) else 1
        if not isinstance(value, (Tensor, int, float)) or numbers != 1 or not isinstance(name, str):
            kind = f"{numbers} numbers" if numbers != 1 else f"a {type(value).__name__}"
            raise _wrong(entry, f"returned {kind} as the metric {name!r}: one number is wanted")


def unpacked(result: Any, entry: str) -> tuple[Any, Any]:  # noqa: ANN401 - as above
    """Return loss and metrics of a result that is a tuple. Raises TrainingError."""
    if len(result) != 2:  # noqa: PLR2004 - both
        raise _wrong(
            entry,
            f"returned a tuple of {len(result)}: it must return the loss, or "
            f"(loss, {{'metric': value, ...}})",
        )
    return result[0], result[1]


def _wrong(entry: str, what: str) -> TrainingError:
    return TrainingError(f"the loss function of {entry} {what}", kind="bad_config")
