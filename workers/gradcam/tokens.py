"""From the tokens of a transformer to a map: what `reshape` means.

Owns the layout of tokens. Never looks at their values. Invariant: a reshape only moves and drops
numbers, so it may be applied to a gradient as well.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from workers.gradcam.callables import is_callable_name, load_callable
from workers.gradcam.errors import BadConfig

if TYPE_CHECKING:
    from collections.abc import Callable

TOKENS = 3
MAP = 4


def vit(tokens: Tensor) -> Tensor:
    """Lay (1, T, C) out as a square map (1, C, h, h): the last h*h tokens, row by row.

    Those in front are no patches: class token, distillation token, registers. h is as large as T
    allows, so up to 2h of them are understood.
    """
    if tokens.ndim != TOKENS:
        raise BadConfig(
            f"gradcam.reshape: vit wants tokens of shape (1, T, C), the layer gives "
            f"{tuple(tokens.shape)}; choose another layer, or give pkg:reshape"
        )
    _, count, channels = tokens.shape
    side = math.isqrt(count)
    patches = tokens[:, count - side * side :]
    return patches.transpose(1, 2).reshape(len(tokens), channels, side, side)


def reshape_of(name: str | None) -> Callable[[Tensor], Tensor]:
    """Return what brings a layer's output to (1, C, h, w), and says so if it cannot."""
    if name is None:
        reshape: Callable[[Tensor], Tensor] = _unchanged
    elif name == "vit":
        reshape = vit
    elif is_callable_name(name):
        reshape = load_callable("gradcam.reshape", name)
    else:
        raise BadConfig(f"gradcam.reshape: {name!r} is neither vit nor pkg:reshape")

    def checked(output: Tensor) -> Tensor:
        reshaped = reshape(output)
        if reshaped.ndim != MAP or len(reshaped) != 1:
            raise BadConfig(
                f"gradcam.layer: its output is {tuple(reshaped.shape)}, not (1, C, h, w); choose a "
                f"layer that gives a map, or say how to get one: reshape: vit, or pkg:reshape"
            )
        return reshaped

    return checked


def _unchanged(output: Tensor) -> Tensor:
    return output
