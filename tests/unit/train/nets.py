"""A small training for the tests of workers/train, with chance wherever a training may have it.

Owns the datasets, the model and the hooks that record or cut a run. Invariant: what a run saw is
told step by step, so two runs can be compared where they part.
"""

import io
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset, TensorDataset

from workers.train.hooks import Hook
from workers.train.loop import Trainer
from workers.train.pieces import Pieces
from workers.train.plan import Plan
from workers.train.randomness import seed_all
from workers.train.ranks import Ranks

SAMPLES = 53  # no multiple of any batch size here
FEATURES = 6
CLASSES = 3


class Cut(Exception):
    """The end of a run in the middle."""


class Augmented(Dataset[tuple[Tensor, int]]):
    """Draws from all three generators that a dataset may draw from."""

    def __init__(self, length: int = SAMPLES) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        values = torch.arange(FEATURES, dtype=torch.float32) * (index % 7)
        noise = torch.randn(FEATURES) + random.random() + float(np.random.rand())  # noqa: NPY002 - what people use
        return values / 10 + noise / 5, index % CLASSES


def plain() -> TensorDataset:
    """Tensors alone: the trainer takes a shortcut for these."""
    values = torch.randn(SAMPLES, FEATURES, generator=torch.Generator().manual_seed(5))
    return TensorDataset(values, torch.arange(SAMPLES) % CLASSES)


class Net(nn.Module):
    """Normalisation with running figures, and dropout."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(FEATURES, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.4)
        )
        self.head = nn.Linear(width, CLASSES)

    def forward(self, values: Tensor) -> Tensor:
        """Return the scores."""
        return self.head(self.body(values))


def loss(model: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Any]]:
    """Return the loss, and metrics that tell which numbers the batch was made of."""
    values, labels = batch
    chance = random.random() + float(np.random.rand())  # noqa: NPY002 - as above
    found = functional.cross_entropy(model(values), labels)
    return found, {"seen": values.double().sum(), "chance": chance}


def pieces(data: Any = None, width: int = 8, **fields: Any) -> Pieces:
    """Return the parts of a small training."""
    return Pieces(
        model=Net(width),
        loss=loss,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, 0.01),
        data=Augmented() if data is None else data,
        **{"batch_size": 8, **fields},
    )


class Diary(Hook):
    """Writes down every step; a hook with a state."""

    def __init__(self) -> None:
        self.steps: dict[int, tuple[Any, ...]] = {}
        self.calls = 0

    def after_step(self, trainer: Trainer) -> None:
        """Note what the step was made of and what came of it."""
        self.calls += 1
        values = {name: value.item() for name, value in trainer.metrics.items()}
        place = (trainer.epoch, trainer.samples, self.calls)
        self.steps[trainer.step] = (tuple(trainer.indices), values, place)

    def state_dict(self) -> dict[str, Any]:
        """Return how many steps it saw."""
        return {"calls": self.calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting."""
        self.calls = state["calls"]


class Cutter(Hook):
    """Takes the state after a step, as a file would hold it, and ends the run."""

    def __init__(self, step: int) -> None:
        self.step = step
        self.saved: bytes | None = None

    def after_step(self, trainer: Trainer) -> None:
        """Act at that step."""
        if trainer.step == self.step:
            state = trainer.state()
            if state is not None:
                self.saved = as_bytes(state)
            raise Cut


def as_bytes(state: dict[str, Any]) -> bytes:
    """Return the file of a state."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def from_bytes(saved: bytes) -> dict[str, Any]:
    """Return the state of a file; anything but plain values and tensors is refused."""
    return torch.load(io.BytesIO(saved), weights_only=True)


def trainer_of(
    plan: Plan, make: Callable[[], Pieces], hooks: Sequence[Hook] = (), ranks: Ranks | None = None
) -> Trainer:
    """Build a training as a new process would."""
    seed_all(plan.seed)
    return Trainer(plan, make(), ranks, hooks)


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Return the places where two states have other bits."""
    if isinstance(one, Tensor):
        fits = isinstance(other, Tensor) and (one.dtype, one.shape) == (other.dtype, other.shape)
        return [] if fits and raw(one) == raw(other) else [where]
    if isinstance(one, dict) and isinstance(other, dict):
        found = [f"{where}.{key}" for key in {*one} ^ {*other}]
        for key in one.keys() & other.keys():
            found += differences(one[key], other[key], f"{where}.{key}")
        return found
    if isinstance(one, (list, tuple)) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [place for key, pair in pairs for place in differences(*pair, f"{where}.{key}")]
    return [] if one == other else [where]


def raw(tensor: Tensor) -> bytes:
    """Return the bytes of a tensor."""
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes()
