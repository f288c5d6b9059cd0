"""The five methods: from what the target layer said to a map of where it saw the class.

Owns the formulas. Never runs a hook and never scales for display. Invariant: a map is finite,
not negative, of the layer's rows and columns, and holds no graph.

In all of them A is the layer's output for one image, shape (C, h, w); k counts its channels; S is
the score of the class before softmax; G = dS/dA. captum's LayerGradCam gives the same numbers as
`gradcam` here and has none of the others, so it is the reference of the tests and not used to run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Evidence:
    """What a method may look at."""

    activation: Tensor
    """A, shape (C, h, w)."""
    gradient: Tensor
    """G, of the same shape; empty where the method asks for none."""
    masked_scores: Callable[[Tensor], Tensor]
    """S of the image times each of these masks; (N, h, w) in 0..1, drawn to its size -> (N,)."""


def gradcam(seen: Evidence) -> Tensor:
    """Grad-CAM: relu(sum_k w_k A_k), where w_k is the mean of G_k over all places.

    Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
    Localization, ICCV 2017, equations 1 and 2.
    """
    weights = seen.gradient.mean(dim=(1, 2), keepdim=True)
    return functional.relu((weights * seen.activation).sum(dim=0))


def gradcam_plus_plus(seen: Evidence) -> Tensor:
    """Grad-CAM++: as Grad-CAM, with w_k the sum over all places of a_k relu(G_k).

    a_k = G_k^2 / (2 G_k^2 + G_k^3 sum(A_k)), and 0 where that is 0/0. The paper explains exp(S),
    of which all derivatives are powers of G times exp(S): that factor is the same for every
    channel, so it is left out (it overflows from S = 89 on). A is meant to be not negative: name
    the layer behind its ReLU.

    Chattopadhay et al., Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep
    Convolutional Networks, WACV 2018, equations 10 and 19.
    """
    squared = seen.gradient**2
    total = seen.activation.sum(dim=(1, 2), keepdim=True)
    divisor = 2 * squared + squared * seen.gradient * total
    share = squared / torch.where(divisor == 0, torch.ones_like(divisor), divisor)
    weights = (share * functional.relu(seen.gradient)).sum(dim=(1, 2), keepdim=True)
    return functional.relu((weights * seen.activation).sum(dim=0))


def layercam(seen: Evidence) -> Tensor:
    """LayerCAM: relu(sum_k relu(G_k) A_k), a weight of its own for each place.

    Jiang et al., LayerCAM: Exploring Hierarchical Class Activation Maps for Localization,
    IEEE TIP 30, 2021, equations 6 to 8.
    """
    return functional.relu((functional.relu(seen.gradient) * seen.activation).sum(dim=0))


def eigencam(seen: Evidence) -> Tensor:
    """Eigen-CAM: the part of A along its first principal direction; no class is asked for.

    A as a matrix of places by channels is U S V'; the map is A v for v the first column of V. The
    sign of v is free: it is taken so that the map sums to more than 0, then cut off below 0.

    Muhammad and Yeasin, Eigen-CAM: Class Activation Map using Principal Components, IJCNN 2020.
    """
    channels, rows, columns = seen.activation.shape
    places = seen.activation.reshape(channels, rows * columns).T
    # v from the smaller of the two products, in doubles: an SVD of A itself costs ten times more.
    if channels <= rows * columns:
        _, vectors = torch.linalg.eigh(places.double().T @ places.double())
        projection = places.double() @ vectors[:, -1]
    else:
        values, vectors = torch.linalg.eigh(places.double() @ places.double().T)
        projection = vectors[:, -1] * values[-1].clamp(min=0).sqrt()
    projection = projection * (1 if projection.sum() >= 0 else -1)
    return functional.relu(projection.to(places.dtype)).reshape(rows, columns)


def scorecam(seen: Evidence) -> Tensor:
    """Score-CAM: relu(sum_k w_k A_k), with no gradient: w is the softmax over k of C_k.

    C_k is S of the image times the mask (A_k - min A_k) / (max A_k - min A_k), drawn to the
    image's size. The paper subtracts S of a black image; the softmax takes that out again. A
    channel without any contrast is no mask and has no weight.

    Wang et al., Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks,
    CVPR Workshops 2020, algorithm 1.
    """
    low = seen.activation.amin(dim=(1, 2), keepdim=True)
    span = seen.activation.amax(dim=(1, 2), keepdim=True) - low
    contrast = span.flatten() > 0
    channels = seen.activation[contrast]
    if len(channels) == 0:
        return torch.zeros_like(seen.activation[0])
    scores = seen.masked_scores((channels - low[contrast]) / span[contrast])
    weights = scores.softmax(dim=0).reshape(-1, 1, 1)
    return functional.relu((weights * channels).sum(dim=0))


class Method(NamedTuple):
    """A formula, and whether it needs G."""

    formula: Callable[[Evidence], Tensor]
    differentiable: bool


METHODS = {
    "gradcam": Method(gradcam, differentiable=True),
    "gradcam++": Method(gradcam_plus_plus, differentiable=True),
    "layercam": Method(layercam, differentiable=True),
    "eigencam": Method(eigencam, differentiable=False),
    "scorecam": Method(scorecam, differentiable=False),
}
