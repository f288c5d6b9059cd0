"""That explaining keeps nothing, measured so that the two usual leaks are seen.

The measure is the process's own: bytes that malloc has given out (all of torch's on the CPU, also
what only a graph in C++ holds) and tensors that Python knows.
"""

import ctypes
import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from captum.attr import LayerGradCam

from tests.unit.gradcam_nets import build, pixels
from workers.gradcam.explain import Explainer
from workers.gradcam.methods import METHODS
from workers.gradcam.network import Network
from workers.gradcam.settings import Settings

CALLS = 200
IMAGE = 32
GRAPH_BYTES = 5 * IMAGE * IMAGE * 4
"""Of the first convolution's output, for one image: what a kept graph holds at the least."""
LAYER_BYTES = 6 * (IMAGE // 2) ** 2 * 4
"""Of the target layer's output, for one image: what a kept hook holds at the least."""
NOISE_BYTES = CALLS * LAYER_BYTES // 20
"""What else may come and go meanwhile (the measuring of coverage, say): no twentieth of a leak."""
FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks")
FIELDS += ("fsmblks", "uordblks", "fordblks", "keepcost")


class Mallinfo(ctypes.Structure):
    """As mallinfo2(3) returns it."""

    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]


@dataclass
class Growth:
    """What is there at the end and was not at the beginning."""

    malloc_bytes: int = 0
    tensors: int = 0


def allocated() -> int:
    """Bytes that malloc has given out and not got back."""
    library = ctypes.CDLL(None)
    library.mallinfo2.restype = Mallinfo
    found = library.mallinfo2()
    return int(found.uordblks + found.hblkhd)


def tensors() -> int:
    """Tensors that Python knows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's old names, which looking at them calls up
        return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())


@contextmanager
def measured() -> Iterator[Growth]:
    """Give what grew within the context, known at its end."""
    growth = Growth()
    gc.collect()
    before = allocated(), tensors()
    yield growth
    gc.collect()
    growth.malloc_bytes = allocated() - before[0]
    growth.tensors = tensors() - before[1]


def grown(call: Callable[[], object]) -> Growth:
    """What 200 calls leave behind, after some that fill torch's own caches."""
    for _ in range(5):
        call()
    with measured() as growth:
        for _ in range(CALLS):
            call()
    return growth


@pytest.mark.parametrize("method", METHODS)
def test_two_hundred_calls_leave_nothing_behind(method: str) -> None:
    """No tensor more, and a twentieth of the memory that the smaller of the leaks below takes."""
    explainer = Explainer(Network(build()), Settings(model="x", method=method))
    image = pixels(IMAGE)
    growth = grown(lambda: explainer.explain(image, lambda _: 1))
    assert growth.tensors == 0
    assert growth.malloc_bytes < NOISE_BYTES


def test_calls_that_fail_leave_nothing_behind() -> None:
    """The same holds when the choice of the class raises, between the two passes."""
    explainer = Explainer(Network(build()), Settings(model="x"))

    def fail(_: torch.Tensor) -> int:
        raise LookupError

    def call() -> None:
        with pytest.raises(LookupError):
            explainer.explain(pixels(IMAGE), fail)

    growth = grown(call)
    assert growth.tensors == 0
    assert growth.malloc_bytes < NOISE_BYTES


def test_an_attribution_that_is_kept_with_its_graph_is_seen_to_grow() -> None:
    """The usual leak: captum's answer is kept without detach, and holds the graph of each image."""
    network, kept = build().eval(), []
    captum = LayerGradCam(network, network.features[3])
    image = pixels(IMAGE)
    growth = grown(lambda: kept.append(captum.attribute(image, target=1)))
    assert growth.tensors >= CALLS
    assert growth.malloc_bytes > CALLS * GRAPH_BYTES


def test_hooks_that_are_kept_are_seen_to_grow() -> None:
    """The other usual leak: a hook for each call, never removed, keeps what it saw."""
    network, image = build().eval(), pixels(IMAGE)

    def call() -> None:
        seen: list[torch.Tensor] = []
        network.features[3].register_forward_hook(lambda _module, _args, out: seen.append(out))
        network(image)[0, 1].backward()

    growth = grown(call)
    assert growth.tensors >= CALLS
    assert growth.malloc_bytes > CALLS * LAYER_BYTES
