"""One image through the network, and the map of where it saw its class.

Owns the forward pass, the backward pass from the score to the target layer, and the drawing of the
map to the size of the input. Never keeps a tensor: what it returns are numbers and an array.
Invariant: after `explain`, returned or raised, no hook and no graph is left.

Not under torch.inference_mode, which would forbid the backward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from workers.gradcam.errors import BadConfig
from workers.gradcam.methods import METHODS, Evidence, Method
from workers.gradcam.network import Network, targets
from workers.gradcam.tap import Tap, logits_of
from workers.gradcam.tokens import reshape_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.gradcam.settings import Settings

MASKS_AT_ONCE = 16


@dataclass(frozen=True)
class Explanation:
    """What is known of an image."""

    heat: np.ndarray
    """float32, rows and columns of the model's input, not negative, on the method's own scale."""
    index: int
    """Of the class the map is for."""
    score: float
    """Its probability: softmax over the classes, or the sigmoid of a single one."""
    layer: str


class Explainer:
    """A network with a method and a target layer, which is found in the first pass."""

    def __init__(self, network: Network, settings: Settings) -> None:
        self.network = network
        self.method: Method = METHODS[settings.method]
        self.reshape = reshape_of(settings.reshape)
        self.layers = targets(network, settings.layer, tokens=settings.reshape is not None)
        self.is_named = settings.layer is not None

    def explain(self, pixels: Tensor, choose: Callable[[Tensor], int]) -> Explanation:
        """Return the map of one image, (1, C, H, W), for the class that `choose` picks.

        Raises BadConfig when the layer gives no map, ValueError for numbers that are not finite.
        """
        tap = Tap(differentiable=self.method.differentiable, maps_only=not self.is_named)
        with torch.set_grad_enabled(tap.differentiable), self.network.tapped(self.layers, tap):
            logits = logits_of(self.network(pixels))
        if tap.output is None or tap.layer is None:
            raise BadConfig(self._unseen())
        self.layers = [tap.layer]
        scores = logits.detach()[0]
        if not scores.isfinite().all():
            raise ValueError("the model's scores of the classes are not finite")
        index = choose(scores)
        heat = self._heat(pixels, tap.output, logits[0, index], index)
        return Explanation(heat, index, _probability(scores, index), tap.layer)

    def _heat(self, pixels: Tensor, output: Tensor, score: Tensor, index: int) -> np.ndarray:
        gradient = output.new_empty(0)
        if self.method.differentiable:
            (slope,) = torch.autograd.grad(score, output, allow_unused=True)
            if slope is None:
                raise BadConfig(
                    f"gradcam.layer: the class scores do not depend on {self.layers[0]} in a way "
                    f"that has a gradient; choose another layer, or method: eigencam or scorecam"
                )
            gradient = self.reshape(slope)[0]

        def masked_scores(masks: Tensor) -> Tensor:
            return self._masked_scores(pixels, masks, index)

        with torch.no_grad():
            activation = self.reshape(output.detach())[0]
            small = self.method.formula(Evidence(activation, gradient, masked_scores))
            drawn = _drawn(small[None, None], pixels)[0, 0]
        heat = drawn.float().cpu().numpy()
        if not np.isfinite(heat).all():
            raise ValueError(f"the map of layer {self.layers[0]} is not finite")
        return heat

    def _masked_scores(self, pixels: Tensor, masks: Tensor, index: int) -> Tensor:
        many = 1 if self.network.one_at_a_time else MASKS_AT_ONCE
        scores = []
        for some in torch.split(masks, many):
            outputs = self.network(pixels * _drawn(some.unsqueeze(1), pixels))
            scores.append(logits_of(outputs, images=len(some))[:, index])
        return torch.cat(scores)

    def _unseen(self) -> str:
        if self.is_named:
            return (
                f"gradcam.layer: {self.layers[0]} was not used for this image, or its output is no "
                f"tensor; choose another layer"
            )
        return (
            "gradcam.layer: no convolution of the model gives a map larger than one pixel; "
            "name another layer"
        )


def _drawn(maps: Tensor, pixels: Tensor) -> Tensor:
    """Draw maps, (N, 1, h, w), to the size of the input."""
    size = pixels.shape[-2:]
    return functional.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def _probability(logits: Tensor, index: int) -> float:
    if len(logits) == 1:
        return float(logits[0].sigmoid())
    return float(logits.softmax(dim=0)[index])
