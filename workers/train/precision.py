"""On which device and with which numbers a training computes.

Owns the choice of the device, autocast and the gradient scaler. Never changes a weight's type.
Invariant: what the device cannot do is told before the first step.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from workers.train.errors import TrainingError

if TYPE_CHECKING:
    from workers.train.ranks import Ranks

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
CUBLAS_CONFIG = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be deterministic


def device_of(name: str, ranks: Ranks) -> torch.device:
    """Return the device of a rank. Raises TrainingError where there is none."""
    available = name != "cpu" and torch.cuda.is_available()
    if name == "cuda" and not available:
        raise TrainingError(
            "train.device is cuda, and torch sees no GPU here: give the job one "
            "(resources.gpus), install a torch with CUDA, or say device: cpu",
            kind="bad_config",
        )
    if not available:
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if ranks.local >= count:
        raise TrainingError(
            f"process {ranks.local} of this host has no GPU of its own: torch sees {count}; "
            f"start at most {count} processes, or say device: cpu",
            kind="bad_config",
        )
    return torch.device("cuda", ranks.local)


def autocast_of(precision: str, device: torch.device) -> Any:  # noqa: ANN401 - a context, to be entered again and again
    """Return the context of a forward pass. Raises TrainingError where the device cannot do it."""
    if precision == "fp32":
        return nullcontext()
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        name = torch.cuda.get_device_name(device)
        raise TrainingError(
            f"train.precision is bf16, which {name} cannot compute: use fp16 or fp32",
            kind="bad_config",
        )
    return torch.autocast(device.type, TYPES[precision])


def scaler_of(precision: str, device: torch.device) -> Any:  # noqa: ANN401 - torch's GradScaler
    """Return what keeps small gradients from vanishing; None where none do."""
    return torch.amp.GradScaler(device.type) if precision == "fp16" else None


def be_deterministic() -> None:
    """Make torch choose algorithms that give the same bits each time, or refuse.

    Call it before CUDA is used: cuBLAS reads its variable once.
    """
    os.environ.setdefault(*CUBLAS_CONFIG)
    torch.use_deterministic_algorithms(mode=True)
    torch.backends.cudnn.benchmark = False
