"""What a user may give to the built-in trainer: one training that is right, and many that are not.

Copied into a job's folder, and imported by the tests that need no job. Owns the functions alone.
"""

import os
import sys
import threading
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from workers.train import Hook, Pieces

NEVER = threading.Event()
SAMPLES = 64
BAD_STEP = 25  # of `nan`
PACE_S = 0.03  # a checkpoint is written in a fraction of ten such steps


def loss(model, batch):
    """How far off it is."""
    return ((model(batch[0]) - batch[1]) ** 2).mean()


def pieces(**changes):
    """Return what is right, with these parts instead."""
    base = {
        "model": nn.Linear(4, 1),
        "loss": loss,
        "optimizer": lambda parameters: torch.optim.SGD(parameters, 0.01, momentum=0.9),
        "data": TensorDataset(torch.randn(SAMPLES, 4), torch.randn(SAMPLES, 1)),
        "batch_size": 8,
    }
    return Pieces(**{**base, **changes})


def build():
    """Build the right one."""
    return pieces()


def takes(width):
    """Need an argument."""
    return pieces(model=nn.Linear(4, width))


def imports():
    """Import something that is not installed."""
    import antigravity_x  # noqa: PLC0415 -- the mistake itself

    return antigravity_x


def raises():
    """Fail, before anything is there."""
    raise KeyError("no such data")


def quits():
    """End the program, as scripts do that were never meant to be imported."""
    sys.exit(0)


def only_one_rank_fails():
    """Fail in the second process alone."""
    if os.environ["RANK"] == "1":
        raise ValueError("my rank has no data")
    return pieces()


def builds_for_ever():
    """Never come back."""
    Path("reached").touch()
    NEVER.wait()


def steps_for_ever():
    """Never end the first step."""

    def stuck(model, batch):
        Path("reached").touch()
        NEVER.wait()

    return pieces(loss=stuck)


def cannot_export():
    """Train well, and fail in the last moment."""

    def export(model, folder):
        raise ValueError("no export today")

    return pieces(export=export)


class Paced(Hook):
    """Knows which step comes next, and leaves the writer time for every checkpoint."""

    next = 1

    def before_train(self, trainer):
        """Begin behind the checkpoint."""
        self.next = trainer.step + 1

    def after_step(self, trainer):
        """Count, and wait."""
        self.next = trainer.step + 1
        NEVER.wait(PACE_S)


def nan():
    """Have no number for a loss at one step, whenever it comes by."""
    place = Paced()

    def bad(model, batch):
        found = loss(model, batch)
        return found * float("nan") if place.next == BAD_STEP else found

    return pieces(loss=bad, hooks=[place])


def ballast(*hooks):
    """Have a state of 400 KiB."""
    model = nn.Linear(4, 1)
    model.register_buffer("ballast", torch.zeros(100 * 1024))
    return pieces(model=model, hooks=hooks)


def heavy():
    """Have one, and never outrun its checkpoints."""
    return ballast(Paced())


class Holds(Hook):
    """Has a state that a test chose."""

    def __init__(self, state):
        self.state = state

    def state_dict(self):
        """Return it."""
        return self.state


class Fails(Hook):
    """Raises in one method, and is an ordinary hook in the others."""

    def __new__(cls, where):
        """Override that method alone: others are not called."""

        def act(self, *_):
            raise ZeroDivisionError(f"my hook in {where}")

        return Hook.__new__(type("Fails", (Hook,), {where: act}))


class Unsized(Dataset):
    """A dataset that does not know how long it is."""

    def __getitem__(self, index):
        return torch.zeros(4), torch.zeros(1)
