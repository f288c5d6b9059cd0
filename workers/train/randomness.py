"""Random numbers that a restart does not change: every generator's state, and seeds by position.

Owns which generators count: Python's `random`, numpy's global one, torch's on the CPU and on this
process's GPU. Never draws from one. Invariant: inside `untouched()` anything may be drawn or seeded
and whatever runs after it sees the numbers it would have seen without.

What draws from the operating system (`random.SystemRandom`, `numpy.random.default_rng()` without a
seed) or from a generator of its own is out of reach.
"""

from __future__ import annotations

import random
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

MASK = 2**64 - 1
# What a seed is for, so that no two uses of one number coincide.
ORDER, SAMPLE, COLLATE, RANK = 1, 2, 3, 4
MT19937 = "MT19937"


def mixed(*numbers: int) -> int:
    """Return 64 bits that depend on every bit of the numbers and on their order (SplitMix64)."""
    state = 0
    for number in numbers:
        state = (state ^ number) + 0x9E3779B97F4A7C15 & MASK
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & MASK
        state = (state ^ state >> 27) * 0x94D049BB133111EB & MASK
        state ^= state >> 31
    return state


@lru_cache(maxsize=1)
def numpy_random() -> Any:  # noqa: ANN401 - a module without types here
    """Return the module numpy.random, None where there is none.

    It is imported although nobody may need it: a dataset that imports it later would start with
    numbers of chance.
    """
    try:
        import numpy.random as found  # noqa: PLC0415 - not everywhere
    except ImportError:
        return None
    return found


def seed_all(seed: int) -> None:
    """Seed every generator of this process."""
    random.seed(seed)
    torch.manual_seed(seed)  # of every GPU too
    numpy = numpy_random()
    if numpy is not None:
        numpy.seed(seed & 0xFFFFFFFF)


def seed_for_sample(seed: int) -> None:
    """Seed what a dataset may draw from; as cheap as can be."""
    random.seed(seed)
    torch.default_generator.manual_seed(seed)
    numpy = numpy_random()
    if numpy is not None:
        numpy.seed(seed & 0xFFFFFFFF)


def capture(device: torch.device) -> dict[str, Any]:
    """Return the state of every generator, in plain values and tensors."""
    version, words, gauss = random.getstate()
    return {
        "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
        "numpy": _numpy_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if _on_gpu(device) else None,
    }


def restore(state: dict[str, Any], device: torch.device) -> None:
    """Set every generator to what `capture` returned, here or in an earlier process."""
    python = state["python"]
    words = tuple(int(word) for word in python["words"].tolist())
    random.setstate((python["version"], words, python["gauss"]))
    torch.set_rng_state(state["torch"])
    numpy = numpy_random()
    if numpy is not None and state["numpy"] is not None:
        numpy.set_state(state["numpy"])
    if _on_gpu(device) and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)


@contextmanager
def untouched(device: torch.device | None = None) -> Iterator[None]:
    """Give the generators back at the end as they were at the beginning."""
    device = torch.device("cpu") if device is None else device
    state = capture(device)
    try:
        yield
    finally:
        restore(state, device)


class Aside:
    """Keeps the generators that a dataset may draw from as they were: `untouched` for each batch.

    Cheaper, because nothing of numpy's is copied: its generator is exchanged for one of our own.
    """

    def __init__(self) -> None:
        numpy = numpy_random()
        self._numpy = numpy if hasattr(numpy, "set_bit_generator") else None  # since 1.24
        self._own = None if self._numpy is None else self._numpy.MT19937(0)
        self._held: Any = None

    def __enter__(self) -> None:
        words: Any = None
        if self._numpy is not None:
            words = self._numpy.get_bit_generator()
            self._numpy.set_bit_generator(self._own)
        elif (numpy := numpy_random()) is not None:
            words = numpy.get_state()
        self._held = (random.getstate(), torch.default_generator.get_state(), words)

    def __exit__(self, *_: object) -> None:
        python, cpu, words = self._held
        self._held = None
        random.setstate(python)
        torch.default_generator.set_state(cpu)
        if self._numpy is not None:
            self._numpy.set_bit_generator(words)
        elif words is not None:
            numpy_random().set_state(words)


def _numpy_state() -> Any:  # noqa: ANN401 - plain values
    numpy = numpy_random()
    return None if numpy is None else _plain(numpy.get_state(legacy=False))


def _plain(value: Any) -> Any:  # noqa: ANN401 - as numpy has them
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value


def _on_gpu(device: torch.device) -> bool:
    cuda: Any = torch.cuda  # without types, in part
    return device.type == "cuda" and bool(cuda.is_initialized())
