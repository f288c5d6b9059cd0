"""Files of torch.export (.pt2): a graph, unflattened into layers that take hooks again.

Owns what is read from the graph of such a file. Never changes it. Invariant: a file that was
exported in training mode is refused, for its dropout cannot be switched off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.export import unflatten

from workers.gradcam.errors import BadConfig
from workers.gradcam.network import Network

if TYPE_CHECKING:
    from torch.export import ExportedProgram

TRAINING_ARGUMENT = {"dropout": 2, "native_dropout": 2, "batch_norm": 5}
"""Where these operators are told that they are being trained."""


class ExportedNetwork(Network):
    """A program loaded by torch.export.load."""

    def __init__(self, program: ExportedProgram) -> None:
        _refuse_training(program)
        super().__init__(unflatten(program))
        self.last = _last_convolution(program)
        # The number of images is part of the program, unless its maker made it dynamic.
        self.one_at_a_time = True

    def convolutions(self) -> list[str]:
        """Name of the convolution that runs last: the order of a graph is known."""
        return [self.last] if self.last else []


def _last_convolution(program: ExportedProgram) -> str | None:
    last = None
    for node in program.graph.nodes:
        if _operator(node).startswith(("conv2d", "convolution", "conv_transpose2d")):
            shape = node.meta["val"].shape
            if len(shape) == 4 and shape[-2] * shape[-1] > 1:  # noqa: PLR2004 - as a Tap's maps
                last = list(node.meta["nn_module_stack"].values())[-1][0]
    return last


def _refuse_training(program: ExportedProgram) -> None:
    for node in program.graph.nodes:
        place = TRAINING_ARGUMENT.get(_operator(node))
        if place is not None and len(node.args) > place and node.args[place] is True:
            raise BadConfig(
                f"gradcam.model: the program was exported in training mode ({_operator(node)} is "
                f"on for ever): call model.eval() before torch.export.export, and save it again"
            )


def _operator(node: Any) -> str:  # noqa: ANN401 - torch's own, without types
    """Return `conv2d` for a call of torch.ops.aten.conv2d.default; empty for what is no call."""
    if isinstance(node.target, torch._ops.OpOverload):  # noqa: SLF001 - its type has no other name
        return str(node.target.overloadpacket.__name__)
    return ""
