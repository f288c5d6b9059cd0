"""A small training that is random wherever a training can be, and strikes itself when asked to.

Copied beside each job.yaml, so it imports nothing of this repository but the trainer. Augmentation
draws from three generators, the network has dropout and running means, batches are accumulated.
`faults.json` in its folder names the faults, and each is marked as done before it strikes. Every
life appends what it saw to `order-RANK.jsonl`: step, sample indices, checksum of the pixels.
"""

import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import sys
import threading
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from workers.train import Hook, Pieces

CLASSES = 4
SIDE = 6
FAULTS = Path("faults.json")
RUNNER = Path("runner.pid")
TIERS = ("SUPERVISE_MEMORY_TIER", "SUPERVISE_CHECKPOINTS")
DRAWN_BY_NUMPY = "numpy" in sys.modules  # torch brings it along where it is installed


class Blobs(Dataset[tuple[Tensor, int]]):
    """Noisy pictures of a few kinds; no two looks at one of them are the same."""

    def __init__(self, samples: int, seed: int) -> None:
        made = torch.Generator().manual_seed(seed)
        prototypes = torch.randn(CLASSES, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
        self.labels = [index % CLASSES for index in range(samples)]
        noise = torch.randn(samples, 1, SIDE, SIDE, generator=made)
        self.images = prototypes[self.labels] + noise

    def __len__(self) -> int:
        """How many."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One of them, shifted, scaled and with fresh noise."""
        image = torch.roll(self.images[index], random.randint(-1, 1), dims=2)  # noqa: S311 - data
        if DRAWN_BY_NUMPY:
            import numpy as np  # noqa: PLC0415 - only where there is one

            image = image * float(np.random.uniform(0.9, 1.1))  # noqa: NPY002 - as people do it
        return image + 0.1 * torch.randn_like(image), self.labels[index]


def network() -> nn.Module:
    """A network with all that makes a resume inexact: dropout, and means kept while training."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(8 * SIDE * SIDE, CLASSES),
    )


class Witness(Hook):
    """Writes down what each step was made of, keeps a state of its own, and inflicts the faults."""

    def __init__(self, pace_s: float) -> None:
        self.pace_s = pace_s
        self.seen = 0
        self.pixels = 0
        self.faults: list[dict[str, Any]] = []
        self.file = -1

    def before_train(self, trainer: Any) -> None:  # noqa: ANN401 - of workers.train
        """Open the record of this rank."""
        if FAULTS.exists():
            self.faults = json.loads(FAULTS.read_text(encoding="ascii"))
        name = f"order-{trainer.ranks.rank}.jsonl"
        self.file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def after_step(self, trainer: Any) -> None:  # noqa: ANN401 - as above
        """Record the step, then be struck if it is time."""
        self.seen += len(trainer.indices)
        line = {
            "step": trainer.step,
            "indices": [int(index) for index in trainer.indices],
            "pixels": self.pixels,
            "seen": self.seen,
        }
        self.pixels = 0
        os.write(self.file, json.dumps(line).encode() + b"\n")
        time.sleep(self.pace_s)  # so that snapshots are taken between the faults
        for number, fault in enumerate(self.faults):
            if fault["step"] == trainer.step and fault["rank"] == trainer.ranks.rank:
                self.strike(number, fault["kind"])

    def strike(self, number: int, kind: str) -> None:
        """Inflict a fault that has not struck yet."""
        mark = Path(f"struck-{number}")
        if mark.exists():
            return
        told = " ".join(str(path) for path in PREPARE.get(kind, nothing)())
        new = mark.with_name(f".{mark.name}")
        new.write_text(f"{kind} {told}".strip(), encoding="utf-8")
        new.rename(mark)
        STRIKE[kind]()

    def state_dict(self) -> dict[str, Any]:
        """What a user's own hook wants to find again."""
        return {"seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Find it again."""
        self.seen = state["seen"]


def nothing() -> list[Path]:
    """No preparation."""
    return []


def tear() -> list[Path]:
    """Damage the newest checkpoint of each tier, one by its length and one by its content."""
    torn = []
    for cut, tier in enumerate(os.environ.get(name, "") for name in TIERS):
        steps = sorted(Path(tier).glob("step-*")) if tier else []
        if not steps:
            continue
        file = steps[-1] / "state.pt"
        size = file.stat().st_size
        with file.open("r+b") as opened:
            if cut:
                opened.truncate(size // 2)
            else:
                opened.seek(size // 2)
                byte = opened.read(1)[0]
                opened.seek(size // 2)
                opened.write(bytes([byte ^ 0x10]))
        torn.append(file)
    return torn


def lose() -> list[Path]:
    """Delete the memory tier, as a reboot does."""
    tier = os.environ.get(TIERS[0], "")
    if not tier:
        return []
    lost = sorted(Path(tier).glob("step-*"))
    shutil.rmtree(tier)
    return lost


def kill() -> None:
    """Die at once."""
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    """Go nowhere, for as long as a forgotten benchmark may last."""
    threading.Event().wait(600)


def stop() -> None:
    """Ask the runner to stop, as a scheduler does, and go on."""
    os.kill(int(RUNNER.read_text(encoding="ascii")), signal.SIGTERM)


def orphan() -> None:
    """Kill the runner, which must take this process along."""
    os.kill(int(RUNNER.read_text(encoding="ascii")), signal.SIGKILL)


def starve() -> None:
    """Kill one of the processes that load the data."""
    for child in multiprocessing.active_children()[:1]:
        os.kill(child.pid or os.getpid(), signal.SIGKILL)


PREPARE = {"torn": tear, "lost": lose}
STRIKE = {
    "kill": kill, "hang": hang, "stop": stop, "torn": kill, "lost": kill, "runner": orphan,
    "loader": starve,
}  # fmt: skip


def build(samples: int = 200, pace_s: float = 0.02) -> Pieces:
    """What the trainer needs."""
    witness = Witness(pace_s)
    held_out = Blobs(64, seed=2)

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        images, labels = batch
        witness.pixels = zlib.crc32(bytes(images.contiguous().view(torch.uint8).flatten().tolist()))
        scores = model(images)
        right = (scores.argmax(1) == labels).float().mean()
        return functional.cross_entropy(scores, labels), {"accuracy": right, "mean": images.mean()}

    def evaluate(model: nn.Module) -> dict[str, float]:
        scores = model(held_out.images)
        wrong = functional.cross_entropy(scores, torch.tensor(held_out.labels)).item()
        return {"held_out": wrong, "perplexity": math.exp(wrong)}

    model = network()
    return Pieces(
        model=model,
        loss=loss,
        optimizer=torch.optim.AdamW(model.parameters(), 0.003),
        data=Blobs(samples, seed=1),
        batch_size=8,
        evaluate=evaluate,
        hooks=[witness],
    )
