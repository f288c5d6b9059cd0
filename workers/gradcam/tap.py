"""Catches the output of the target layer in one forward pass, and starts the gradient there.

Owns what is put in the place of the layer's output. Never keeps anything beyond its own life: who
holds no Tap holds no graph. Invariant: the numbers that go on through the model are the layer's.

Grad-CAM needs the gradient of the class score with regard to the layer's output A, not to the
weights nor to the pixels. So A is cut off from what made it and becomes the leaf of the graph:
nothing is recorded before it, and the backward pass ends there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from workers.gradcam.errors import BadConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

IMAGE_LIKE = 4
"""Dimensions of an output that is a map: images, channels, rows, columns."""


@dataclass
class Tap:
    """One forward pass seen from its target layer; of several layers, the last that ran."""

    differentiable: bool
    maps_only: bool
    """Whether an output that is no map, or one of a single pixel, is let pass."""
    layer: str | None = None
    output: Tensor | None = None

    def catch(self, layer: str, output: Any) -> Any:  # noqa: ANN401 - whatever a layer returns
        """Keep the output, and return what goes on in its place."""
        tensor = first_tensor(output)
        if tensor is None or (self.maps_only and not _is_map(tensor)):
            return output
        self.layer, self.output = layer, tensor.detach()
        if self.differentiable:
            self.output.requires_grad_()
        # A copy: an operation in place right behind the layer (ReLU) must not change what we keep.
        return _with_first(output, self.output.clone())


def first_tensor(output: Any) -> Tensor | None:  # noqa: ANN401 - whatever a layer returns
    """Return the tensor that an output is or begins with; None if there is none."""
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def logits_of(output: Any, images: int = 1) -> Tensor:  # noqa: ANN401 - whatever a model returns
    """Return the scores of the classes, shape (images, classes).

    Understands a tensor, a tuple that begins with one, and `logits` in a mapping or an object (as
    transformers returns it). Raises BadConfig for anything else.
    """
    logits = output["logits"] if _has_logits(output) else getattr(output, "logits", output)
    tensor = first_tensor(logits)
    if tensor is None:
        what = type(output).__name__
        raise BadConfig(f"gradcam.model: it returned a {what}, not the scores of the classes")
    if tensor.ndim == IMAGE_LIKE and tensor.shape[-2:] == (1, 1):
        tensor = tensor.flatten(1)
    if tensor.ndim != 2 or len(tensor) != images:  # noqa: PLR2004 - images by classes
        raise BadConfig(
            f"gradcam.model: it returned shape {tuple(tensor.shape)} for {images} image(s), not "
            f"({images}, classes); build a model that ends in the scores of the classes"
        )
    return tensor


def _has_logits(output: Mapping[str, Any] | object) -> bool:
    return isinstance(output, dict) and "logits" in output


def _is_map(tensor: Tensor) -> bool:
    return tensor.ndim == IMAGE_LIKE and tensor.shape[-2] * tensor.shape[-1] > 1


def _with_first(output: Any, tensor: Tensor) -> Any:  # noqa: ANN401 - whatever a layer returns
    if isinstance(output, Tensor):
        return tensor
    return type(output)([tensor, *output[1:]])
