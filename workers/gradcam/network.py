"""A model that can be looked into: in evaluation mode, frozen, with names for its layers.

Owns the choice of the target layer and the hooks on it. Never leaves a hook behind, whatever the
model raises. Invariant: a network that is not tapped computes what the model alone computes.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from workers.gradcam.errors import BadConfig, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch

    from workers.gradcam.tap import Tap

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


class Network:
    """A module of Python layers, which take hooks."""

    one_at_a_time = False
    """Whether it only takes the number of images it was made with."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module.eval()  # dropout off, statistics of the training used
        for parameter in module.parameters():
            parameter.requires_grad_(False)  # noqa: FBT003 - torch has no such keyword

    def __call__(self, pixels: Tensor) -> Any:  # noqa: ANN401 - whatever the model returns
        """Return what the model returns for images of shape (N, C, H, W)."""
        return self.module(pixels)

    def to(self, device: torch.device) -> None:
        """Move the weights there."""
        self.module.to(device)

    def layers(self) -> list[str]:
        """Names of all layers, in the model's own order."""
        return [name for name, _ in self.module.named_modules() if name]

    def convolutions(self) -> list[str]:
        """Names of the layers among which the last that runs is the default."""
        return [name for name, one in self.module.named_modules() if isinstance(one, CONVOLUTIONS)]

    @contextmanager
    def tapped(self, layers: Sequence[str], tap: Tap) -> Iterator[None]:
        """Let the tap catch what these layers return, within the context only."""
        modules = dict(self.module.named_modules())
        with ExitStack() as hooks:
            for name in layers:
                hooks.enter_context(
                    modules[name].register_forward_hook(partial(_caught, tap, name))
                )
            yield


def targets(network: Network, layer: str | None, *, tokens: bool) -> list[str]:
    """Return the target layer by its name, or the convolutions, of which the last one counts.

    Raises BadConfig when there is no such layer, and when a transformer's is not named (`tokens`):
    its only convolution cuts the image into patches, and knows nothing of classes.
    """
    known = network.layers()
    if layer is not None:
        if layer not in known:
            raise BadConfig(f"gradcam.layer: no layer {layer!r}; {suggestion(layer, known)}")
        return [layer]
    if tokens:
        norms = [name for name in known if "norm" in name.rpartition(".")[2].lower()]
        raise BadConfig(
            "gradcam.layer: name the layer of a transformer, usually the first norm of its last "
            f"block; {suggestion('', norms or known)}"
        )
    found = network.convolutions()
    if not found:
        raise BadConfig(
            f"gradcam.layer: the model has no convolution; name a layer; {suggestion('', known)}"
        )
    return found


def _caught(tap: Tap, name: str, _module: nn.Module, _args: Any, output: Any) -> Any:  # noqa: ANN401 - whatever a layer returns
    return tap.catch(name, output)
