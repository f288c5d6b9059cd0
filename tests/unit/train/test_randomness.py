"""Random states are kept, given back and mixed, and batches are moved whole."""

import random
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.train.nets import Augmented, pieces
from workers.train import randomness
from workers.train.data import Samples
from workers.train.order import Order
from workers.train.randomness import Aside, capture, mixed, restore, seed_all, untouched
from workers.train.tensors import moved

CPU = torch.device("cpu")


def drawn() -> list[float]:
    """Draw from every generator."""
    return [random.random(), random.gauss(0, 1), float(np.random.rand()), torch.rand(1).item()]  # noqa: NPY002 - the state in question


@pytest.mark.parametrize("keep", [untouched, Aside])
def test_nothing_inside_is_noticed_outside(keep: Any) -> None:
    """Whatever is drawn or seeded there, the numbers after it are those without it."""
    seed_all(3)
    wanted = [drawn(), drawn()]
    seed_all(3)
    found = [drawn()]
    with keep():
        drawn()
        seed_all(99)
        drawn()
    found.append(drawn())
    assert found == wanted


def test_an_error_inside_gives_the_states_back_too() -> None:
    """A sample that cannot be read does not move the training."""
    seed_all(3)
    wanted = drawn()
    seed_all(3)

    def unreadable(keep: Any) -> None:
        with keep:
            drawn()
            raise OSError("unreadable")

    for keep in (untouched(), Aside()):
        with pytest.raises(OSError, match="unreadable"):
            unreadable(keep)
    assert drawn() == wanted


def test_an_older_numpy_is_kept_aside_by_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a way to exchange its generator its state is copied."""
    names = ("seed", "get_state", "set_state")
    older = SimpleNamespace(**{name: getattr(np.random, name) for name in names})
    monkeypatch.setattr(randomness, "numpy_random", lambda: older)
    test_nothing_inside_is_noticed_outside(Aside)


def test_without_numpy_the_rest_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch alone is enough."""
    monkeypatch.setattr(randomness, "numpy_random", lambda: None)
    seed_all(4)
    state = capture(CPU)
    assert state["numpy"] is None
    wanted = [random.random(), torch.rand(1).item()]
    restore(state, CPU)
    with Aside():
        random.random()
        torch.rand(1)
    assert [random.random(), torch.rand(1).item()] == wanted


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4), st.integers(0, 3))
def test_mixed_tells_numbers_apart(numbers: list[int], place: int) -> None:
    """One bit more in one of them is another result, of 64 bits."""
    others = list(numbers)
    others[place % len(others)] ^= 1 << 17
    assert mixed(*numbers) != mixed(*others)
    assert 0 <= mixed(*numbers) < 2**64


def test_samples_for_other_processes_are_the_same() -> None:
    """A loader that has to pickle them gets what a forked one has."""
    samples = Samples(pieces(Augmented(9)), 5)
    copy = Samples.__new__(Samples)
    copy.__setstate__(samples.__getstate__())
    draw = next(Order(9, 4, 5).draws(0, 0))
    for one, other in zip(samples[draw], copy[draw], strict=True):
        assert torch.equal(one, other)


class Pair(NamedTuple):
    """A batch with names."""

    left: torch.Tensor
    right: torch.Tensor


class Own:
    """A batch of a class of its own."""

    def to(self, device: torch.device) -> str:
        """Say where it went."""
        return f"own on {device.type}"


def test_a_batch_is_moved_whole() -> None:
    """Containers keep their kind, and what is no tensor stays as it is."""
    meta = torch.device("meta")
    one = torch.ones(2)
    batch = {"a": [one, 3], "b": (one, "word"), "pair": Pair(one, one), "own": Own(), "none": None}
    found = moved(batch, meta)
    places = [found["a"][0], found["b"][0], *found["pair"]]
    assert all(tensor.device == meta for tensor in places)
    assert (found["a"][1], found["b"][1], found["own"], found["none"]) == (
        3,
        "word",
        "own on meta",
        None,
    )
    assert [type(found[key]) for key in ("a", "b", "pair")] == [list, tuple, Pair]
