"""Makes of a model what a step calls: one copy of several, compiled, or just itself.

Owns the settings of DistributedDataParallel and torch.compile. Never changes a weight. Invariant:
the bits of a step do not depend on how many steps this process has taken before it.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from workers.train.plan import Plan
    from workers.train.ranks import Ranks

COMMUTES = 2  # a sum of so many numbers has the same bits in any order


def wrapped_of(model: nn.Module, plan: Plan, ranks: Ranks, device: torch.device) -> Any:  # noqa: ANN401 - a module, or torch's wrapper of one
    """Return what the loss is computed with. With several ranks all of them must come here."""
    wrapped: Any = model
    if ranks.size > 1:
        wrapped = DistributedDataParallel(
            model,
            device_ids=[device] if device.type == "cuda" else None,
            # After its first step it would regroup the gradients, and with them the order in which
            # three or more ranks add them up: a restarted run would add the first step otherwise.
            find_unused_parameters=ranks.size > COMMUTES,
        )
    if plan.compile:
        # A shape that is compiled anew must not depend on the shapes seen before.
        wrapped = torch.compile(wrapped, dynamic=False)
    return wrapped


def without_sync(wrapped: Any) -> Any:  # noqa: ANN401 - as above
    """Return a context for all batches of a step but the last: gradients stay in this rank."""
    inner = getattr(wrapped, "_orig_mod", wrapped)  # where torch.compile keeps it
    return inner.no_sync() if isinstance(inner, DistributedDataParallel) else nullcontext()
