"""TorchScript files: layers without hooks, tapped in the graph itself.

Owns the operator `supervise::tap` and its place in the graph. Never writes to the file. Invariant:
the rewritten graph computes what the file's graph computes.

torch.jit refuses hooks on the layers of a loaded file ("register_forward_hook is not supported on
ScriptModules"), but a graph can be changed before it first runs: all calls are inlined, and behind
the target stands one more operator, written in Python, which hands its input to the tap. What is
inlined has operators and no boundaries of layers, so a target must be a layer with a weight of its
own (a convolution, linear or norm): it is found by the name of that weight.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.jit._fuser import optimized_execution
from torch.library import Library

from workers.gradcam.errors import BadConfig
from workers.gradcam.network import Network

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from workers.gradcam.tap import Tap

CONVOLUTIONS = {"aten::conv2d", "aten::_convolution", "aten::convolution", "aten::conv_transpose2d"}
TRAINING_ARGUMENT = {"aten::dropout": 2, "aten::batch_norm": 5}
"""Where these operators are told that they are being trained."""

_listening: list[Tap] = []
_libraries: list[Library] = []


class ScriptedNetwork(Network):
    """A module loaded by torch.jit.load."""

    def __init__(self, module: torch.jit.ScriptModule) -> None:
        super().__init__(module)
        _define_operator()
        self.graph: Any = module.graph
        torch._C._jit_pass_inline(self.graph)  # noqa: SLF001 - torch.jit has no public way
        self.weighted = {_layer(node): node for node in _nodes(self.graph) if _layer(node)}
        self.placed: Sequence[str] = ()
        _refuse_training(self.graph)

    def layers(self) -> list[str]:
        """Names of the layers that have a weight, in the order in which they run."""
        return list(self.weighted)

    def convolutions(self) -> list[str]:
        """Name of the convolution that runs last: the order of a graph is known."""
        names = [name for name, node in self.weighted.items() if node.kind() in CONVOLUTIONS]
        return names[-1:]

    @contextmanager
    def tapped(self, layers: Sequence[str], tap: Tap) -> Iterator[None]:
        """Let the tap catch what these layers return, within the context only."""
        self._place(layers)
        _listening.append(tap)
        try:
            # The profiling executor would fuse what lies behind the tap into one node of autograd,
            # and compile it anew for each size of image.
            with optimized_execution(should_optimize=False):
                yield
        finally:
            _listening.remove(tap)

    def _place(self, layers: Sequence[str]) -> None:
        """Put the operator behind these layers, once: what has run is not compiled again."""
        if self.placed == layers:
            return
        if self.placed:
            raise RuntimeError(f"this network is tapped at {self.placed}; load it again")
        for layer in layers:
            node = self.weighted[layer]
            self.graph.setInsertPoint(node)
            name = self.graph.insertConstant(layer)
            tap = self.graph.create("supervise::tap", [node.output(), name], 1)
            tap.insertAfter(node)
            tap.output().setType(node.output().type())
            node.output().replaceAllUsesAfterNodeWith(tap, tap.output())
        self.placed = layers


def _define_operator() -> None:
    if _libraries:
        return
    library: Any = Library("supervise", "FRAGMENT")  # type: ignore[no-untyped-call]  # torch's own
    library.define("tap(Tensor output, str layer) -> Tensor")
    library.impl("tap", _caught, "CompositeImplicitAutograd")
    _libraries.append(library)  # its operators go when it goes


def _caught(output: Tensor, layer: str) -> Tensor:
    caught: Tensor = _listening[-1].catch(layer, output) if _listening else output
    return caught.clone() if caught is output else caught  # never an alias, as the schema says


def _nodes(block: Any) -> Iterator[Any]:  # noqa: ANN401 - torch's own, without types
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _layer(node: Any) -> str:  # noqa: ANN401 - torch's own, without types
    """Return the name of the layer whose weight this operator takes; empty if it takes none."""
    if node.kind().startswith("prim::"):
        return ""
    for value in list(node.inputs())[1:]:
        path = _attributes(value.node())
        if path and path[-1] == "weight":
            return ".".join(path[:-1])
    return ""


def _attributes(node: Any) -> list[str]:  # noqa: ANN401 - torch's own, without types
    path: list[str] = []
    while node.kind() == "prim::GetAttr":
        path.insert(0, node.s("name"))
        node = next(node.inputs()).node()
    return path


def _refuse_training(graph: Any) -> None:  # noqa: ANN401 - torch's own, without types
    for node in _nodes(graph):
        place = TRAINING_ARGUMENT.get(node.kind())
        if place is not None and list(node.inputs())[place].toIValue() is True:
            raise BadConfig(
                f"gradcam.model: the TorchScript file was traced in training mode ({node.kind()} "
                f"is on for ever): call model.eval() before torch.jit.trace, and save it again"
            )
