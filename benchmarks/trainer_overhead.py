"""What the built-in trainer's loop costs a step, beside a loop written by hand.

The network, the data and the optimizer are those of examples/digits/train.py; both loops do the
same arithmetic on batches of the same size, and the one by hand does nothing else. They take turns
every few steps, within one process: a hook of the trainer runs the other loop in between.
"""

import os
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.figures import Spread, arguments
from benchmarks.table import Cell, Promise, Table, show

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from workers.train import Hook, Pieces, Plan, Trainer

TURNS, QUICK_TURNS = 120, 30
TURN_STEPS = 15
LIMIT = 1.02
BARE, READY = "trainer, no hooks", "trainer, its ready hooks"
SAMPLES, BATCH = 1437, 32
MS_PER_S = 1e3


def main() -> None:
    """Measure and tell."""
    given = arguments(__doc__)
    turns = QUICK_TURNS if given.quick else TURNS
    rows: list[tuple[Cell, ...]] = []
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="trainer-overhead-") as folder:
        for name in (BARE, READY):
            race = measured(name, turns, Path(folder) / name)
            pairs = list(zip(race.ours, race.by_hand, strict=True))
            ratios[name] = Spread.of([ours.wall_s / other.wall_s for ours, other in pairs]).median
            at_work = Spread.of([ours.cpu_s / other.cpu_s for ours, other in pairs]).median
            for who, turns_of in (("loop by hand", race.by_hand), (name, race.ours)):
                steps = [turn.wall_s / TURN_STEPS * MS_PER_S for turn in turns_of]
                cells = (Spread.of(steps).low, Spread.of(steps).median)
                is_ours = turns_of is race.ours
                rows.append((who, *cells, *((ratios[name], at_work) if is_ours else (1, 1))))
    promises = [Promise(name, ratio, "x by hand", most=LIMIT) for name, ratio in ratios.items()]
    heads = ("a step of the digits network", "p5 ms", "p50 ms", "x by hand", "x in CPU time")
    title = f"trainer_overhead ({turns} turns of {TURN_STEPS} steps each)"
    show(title, [Table("", heads, rows)], promises, as_json=given.json)


class Turn(NamedTuple):
    """How long a turn took, and how long its thread was at work in it."""

    wall_s: float
    cpu_s: float

    @classmethod
    def now(cls) -> "Turn":
        """The clocks."""
        return cls(time.perf_counter(), time.thread_time())

    def until(self, end: "Turn") -> "Turn":
        """The time in between."""
        return Turn(end.wall_s - self.wall_s, end.cpu_s - self.cpu_s)


class Race(Hook):
    """Lets the loop by hand have its turn between two turns of the trainer's."""

    def __init__(self, data: TensorDataset) -> None:
        self.ours: list[Turn] = []
        self.by_hand: list[Turn] = []
        self._other = ByHand(data)
        self._began = Turn.now()

    def before_train(self, trainer: Trainer) -> None:
        """Begin the trainer's first turn."""
        del trainer
        self._began = Turn.now()

    def after_step(self, trainer: Trainer) -> None:
        """Change turns where it is time to."""
        if trainer.step % TURN_STEPS:
            return
        ended = Turn.now()
        self.ours.append(self._began.until(ended))
        self._other.turn()
        self._began = Turn.now()
        self.by_hand.append(ended.until(self._began))


class ByHand:
    """The loop without a trainer."""

    def __init__(self, data: TensorDataset) -> None:
        self._images, self._labels = data.tensors
        self._model = network()
        self._optimizer = optimizer_of(self._model.parameters())
        self._batches: list[Tensor] = []

    def turn(self) -> None:
        """Take as many steps as a turn has."""
        for _ in range(TURN_STEPS):
            if not self._batches:
                self._batches = list(torch.split(torch.randperm(len(self._images)), BATCH))
            batch = self._batches.pop()
            self._optimizer.zero_grad()
            loss: Any = functional.cross_entropy(
                self._model(self._images[batch]), self._labels[batch]
            )
            loss.backward()
            self._optimizer.step()


def measured(name: str, turns: int, folder: Path) -> Race:
    """Train with the hooks that the name says; the first turn is thrown away."""
    dataset = data()
    race = Race(dataset)
    fields = {"steps": (turns + 1) * TURN_STEPS, "out": str(folder), "snapshot_s": None}
    plan = Plan.of({**fields, "save": {"every_s": None}})
    folder.mkdir()
    parts = Pieces(network(), loss_of, optimizer_of, dataset, BATCH, hooks=[race])
    with redirect_stdout(sys.stderr):  # its progress is no result
        Trainer(plan, parts, hooks=[race] if name == BARE else None).train()
    del race.ours[0], race.by_hand[0]
    return race


def data() -> TensorDataset:
    """As many images as the digits have for training, of noise: only the time counts."""
    return TensorDataset(torch.rand(SAMPLES, 1, 8, 8), torch.randint(0, 10, (SAMPLES,)))


def network() -> nn.Module:
    """Return the network of examples/digits/train.py."""

    def convolution(inputs: int, outputs: int) -> nn.Module:
        layer = nn.Conv2d(inputs, outputs, 3, padding=1)
        return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())

    return nn.Sequential(
        *(convolution(1, 56), convolution(56, 56), nn.MaxPool2d(2)),
        *(convolution(56, 112), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Dropout(0.3), nn.Linear(112 * 2 * 2, 10)),
    )


def optimizer_of(parameters: Any) -> torch.optim.Optimizer:  # noqa: ANN401 - any iterable of them
    """Return its optimizer."""
    return torch.optim.AdamW(parameters, 0.003, weight_decay=0.05)


def loss_of(model: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401 - images and labels
    """Return its loss."""
    images, labels = batch
    return functional.cross_entropy(model(images), labels)


if __name__ == "__main__":
    main()
