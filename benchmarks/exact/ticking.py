"""A training that notes the moments of its life, to measure its death and rebirth by.

Copied beside each job.yaml, so it imports nothing of this repository but the trainer. Each line of
`ticks` is `what pid step monotonic-ns`; what: imported, built, ready (about to train), step (done).
As a script (PACE_S SAVE_EVERY STEPS) it trains unsupervised. It ends after a quarter of an hour.
"""

import os
import sys
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from workers.train import Hook, Pieces, run

CLASSES, SIDE, SAMPLES = 10, 8, 1437
LIFE_S = 900.0


class Ticks(Hook):
    """Writes the moments down."""

    def __init__(self, pace_s: float) -> None:
        self.pace_s = pace_s
        self.file = os.open("ticks", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.until_s = time.monotonic() + LIFE_S

    def tick(self, what: str, step: int = 0) -> None:
        """Write one."""
        line = f"{what} {os.getpid()} {step} {time.monotonic_ns()}\n"
        os.write(self.file, line.encode("ascii"))

    def before_train(self, trainer: Any) -> None:  # noqa: ANN401 - of workers.train
        """The state is loaded, the first step comes."""
        self.tick("ready", trainer.step)

    def after_step(self, trainer: Any) -> None:  # noqa: ANN401 - as above
        """A step is done."""
        self.tick("step", trainer.step)
        if self.pace_s:
            time.sleep(self.pace_s)
        if time.monotonic() > self.until_s:
            sys.exit("nobody ended this benchmark")


TICKS = Ticks(0.0)
TICKS.tick("imported")


def build(width: int = 48, hidden: int = 0, pace_s: float = 0.0) -> Pieces:
    """The network of the digits; `hidden` makes it as large as one likes."""
    TICKS.pace_s = pace_s
    drawn = torch.Generator().manual_seed(1)
    images = torch.rand(SAMPLES, 1, SIDE, SIDE, generator=drawn)
    labels = torch.randint(CLASSES, (SAMPLES,), generator=drawn)
    features = 2 * width * (SIDE // 4) ** 2
    middle = [nn.Linear(features, hidden), nn.Linear(hidden, hidden)] if hidden else []
    model = nn.Sequential(
        *(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Dropout(0.3), *middle, nn.Linear(hidden or features, CLASSES)),
    )
    pieces = Pieces(
        model=model,
        loss=loss,
        optimizer=torch.optim.AdamW(model.parameters(), 0.001),
        data=TensorDataset(images, labels),
        hooks=[TICKS],
    )
    TICKS.tick("built")
    return pieces


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """How wrong it is."""
    images, labels = batch
    return functional.cross_entropy(model(images), labels)


if __name__ == "__main__":
    torch.set_num_threads(1)
    pace = {"pace_s": float(sys.argv[1])}
    save = {"every_s": None, "steps": int(sys.argv[2]), "keep": 2}
    sys.exit(run(build, args=pace, steps=int(sys.argv[3]), save=save).exit_code)
