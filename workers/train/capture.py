"""Copies a training's state to the host, in buffers that the next copy uses again.

Owns the buffers and, on a GPU, the stream that fills them. Never allocates where the state kept its
shape. Invariant: what is captured is the state as it was when it was asked for: on a GPU the
training's own stream waits for the copies before it changes what is being copied.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from workers.train.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

Place = tuple[Any, ...]  # keys and indices that lead to a leaf of the tree
PLAIN = (int, float, str, bytes, bool, type(None))
# What a file of the state can hold besides: torch.load takes no other type without being told.
READABLE = (complex, bytearray, torch.Size, torch.dtype, torch.device, torch.layout)


class Captured(NamedTuple):
    """A tree like the captured one; its tensors may be read once `wait` has returned."""

    tree: Any
    size_bytes: int
    copied: Any = None  # the event of a GPU

    def wait(self) -> None:
        """Wait for the copies."""
        if self.copied is not None:
            self.copied.synchronize()


def host_copy(vector: Tensor) -> tuple[Tensor, Any]:
    """Return a copy in the host's memory, and the event after which it may be read; None: at once.

    Nobody waits for it meanwhile.
    """
    if not _on_gpu(vector.device):
        return vector.clone(), None
    copy_ = torch.empty_like(vector, device="cpu", pin_memory=True)
    copy_.copy_(vector, non_blocking=True)
    copied = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's
    copied.record(torch.cuda.current_stream(vector.device))
    return copy_, copied


class Capture:
    """One set of buffers: a captured tree is good until the next one is taken.

    `waits` tells of a place whether only the optimizer changes what is there: its copy may go on
    beside the next forward and backward pass, until `release`.
    """

    def __init__(self, device: torch.device, waits: Callable[[Place], bool]) -> None:
        self._device = device
        self._waits = waits
        self._stream: Any = None
        if _on_gpu(device):
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's
        self._buffers: dict[Place, Tensor] = {}
        self._copied: Any = None

    def take(self, tree: Any) -> Captured:  # noqa: ANN401 - dicts, lists, tensors and plain values
        """Copy a tree of dicts, lists, tuples, tensors and plain values."""
        walk = _Walk(self._buffers)
        taken = walk.copied((), tree)
        self._buffers = walk.buffers
        if self._stream is not None:
            self._copied = self._copy_beside(walk.pending)
        size_bytes = sum(buffer.nbytes for buffer in walk.unique.values())
        return Captured(taken, size_bytes, self._copied)

    def release(self) -> None:
        """Have the training's stream wait for the copies: its optimizer comes next."""
        if self._copied is not None:
            torch.cuda.current_stream(self._device).wait_event(self._copied)
            self._copied = None

    def _copy_beside(self, pending: list[tuple[Place, Tensor, Tensor]]) -> Any:  # noqa: ANN401 - an event
        """Copy on the stream; the training's waits at once for what it may change at once."""
        training = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(training)
        with torch.cuda.stream(self._stream):
            for wanted in (False, True):
                for place, buffer, tensor in pending:
                    if self._waits(place) is wanted:
                        buffer.copy_(tensor, non_blocking=True)
                        tensor.record_stream(self._stream)  # its memory is not reused before
                event = self._stream.record_event()
                if not wanted:
                    training.wait_event(event)
        return event


class _Walk:
    """One pass over a tree; tensors of the host are copied, those of a GPU are put aside."""

    def __init__(self, previous: dict[Place, Tensor]) -> None:
        self.previous = previous
        self.buffers: dict[Place, Tensor] = {}
        self.unique: dict[tuple[Any, ...], Tensor] = {}  # tied weights are copied once
        self.taken: set[int] = set()
        self.pending: list[tuple[Place, Tensor, Tensor]] = []

    def copied(self, place: Place, value: Any) -> Any:  # noqa: ANN401 - a tree
        """Return the copy of what is at a place."""
        if isinstance(value, torch.Tensor):
            return self._tensor(place, value.detach())
        if isinstance(value, dict):
            ordered = isinstance(value, OrderedDict)
            inner: Any = OrderedDict() if ordered else {}
            for key, one in value.items():
                inner[_plain(place, key)] = self.copied((*place, key), one)
            if ordered and hasattr(value, "_metadata"):  # versions of modules, for load_state_dict
                inner._metadata = copy.copy(value._metadata)  # noqa: SLF001 - torch's own name
            return inner
        if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
            return type(value)(self.copied((*place, i), one) for i, one in enumerate(value))
        return _plain(place, value)

    def _tensor(self, place: Place, tensor: Tensor) -> Tensor:
        if tensor.layout != torch.strided:
            return tensor.cpu().clone()
        key = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.device)
        buffer = self.unique.get(key)
        if buffer is None:
            buffer = self._buffer(place, tensor)
            self.unique[key] = buffer
            if _on_gpu(tensor.device):
                self.pending.append((place, buffer, tensor))
            else:
                buffer.copy_(tensor)
        self.buffers[place] = buffer
        return buffer

    def _buffer(self, place: Place, tensor: Tensor) -> Tensor:
        """Return the buffer of the last time, where it fits and is not in use at another place."""
        pinned = _on_gpu(tensor.device)
        known = self.previous.get(place)
        if (
            known is None
            or id(known) in self.taken
            or (known.dtype, known.shape, known.stride())
            != (tensor.dtype, tensor.shape, tensor.stride())
        ):
            known = torch.empty_like(tensor, device="cpu", pin_memory=pinned)
        self.taken.add(id(known))
        return known


def _plain(place: Place, value: Any) -> Any:  # noqa: ANN401 - a leaf, or a key
    """Return what a file gives back as it was; what it cannot give back is found now, not then.

    Raises TrainingError.
    """
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind in READABLE:
        return copy.copy(value)
    if kind in (set, tuple):  # a tuple as a key
        return kind(_plain(place, one) for one in value)
    for plain in (int, float, str):  # numpy.float64 is a float, a member of an IntEnum an int
        if isinstance(value, plain):
            return plain(value)
    path = " > ".join(map(str, place[1:]))
    raise TrainingError(
        f"the state to be saved holds a {kind.__module__}.{kind.__qualname__} at {path}, which no "
        f"checkpoint can give back: make it of numbers, texts, lists, dicts and tensors",
        kind="bad_config",
    )


def _on_gpu(device: torch.device) -> bool:
    return device.type == "cuda"
