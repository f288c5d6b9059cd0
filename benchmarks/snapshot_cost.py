"""What a snapshot to memory every five seconds costs a training: with and without in turn.

One training of each model by the built-in trainer, cut into blocks of five seconds. When every
other block begins a snapshot is asked for, as the clock would ask; it is taken, checked and
written to tmpfs while the block goes on. Neighbours are compared, in the order with, without,
without, with, so that what drifts on the host cancels. Every snapshot must be published.
"""

import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from benchmarks.figures import Figure, Spread, arguments, show
from examples.digits.train import Run, load_data
from workers.protocol import ENV_MEMORY_TIER
from workers.train import Hook, Pieces, Plan
from workers.train.loop import Trainer
from workers.train.snapshot import Snapshots

INTERVAL_S = 5.0
PAIRS, QUICK_PAIRS = 12, 2
WARM_STEPS = 20
LIMIT_PERCENT = 1.0
MS = 1000.0
WIDTH, LAYERS = 2048, 6  # 25 million weights, 100 MB
SHM = Path("/dev/shm")  # noqa: S108 - the tmpfs of every Linux


@dataclass
class Blocks(Hook):
    """Times blocks of steps, and asks for a snapshot at the beginning of those that have one."""

    pairs: int
    steps: int = 0  # of one block
    warm: list[float] = field(default_factory=list)
    took: list[tuple[bool, float]] = field(default_factory=list)
    began: float = 0.0
    ends: int = 0  # the step that ends the block

    def after_step(self, trainer: Trainer) -> None:
        """Find out how many steps a block has, then end one and begin the next."""
        now = time.perf_counter()
        if not self.steps:
            self.warm.append(now)
            if len(self.warm) > WARM_STEPS:
                each = statistics.median(b - a for a, b in itertools.pairwise(self.warm))
                self.steps = max(2, round(INTERVAL_S / each))
                self._begin(trainer, now)
        elif trainer.step == self.ends:
            self.took.append((self._has_one(), now - self.began))
            if len(self.took) == 2 * self.pairs:
                trainer.ask("stop")
            self._begin(trainer, now)

    def _begin(self, trainer: Trainer, now: float) -> None:
        self.began, self.ends = now, trainer.step + self.steps
        if self._has_one() and len(self.took) < 2 * self.pairs:
            trainer.ask("snapshot")

    def _has_one(self) -> bool:
        return len(self.took) % 4 in (0, 3)

    def ratios(self) -> list[float]:
        """With against without, of each pair of neighbours."""
        pairs = zip(self.took[::2], self.took[1::2], strict=True)
        return [
            first / second if has_one else second / first for (has_one, first), (_, second) in pairs
        ]


class Stalls:
    """Milliseconds that the training thread spends in taking a snapshot."""

    def __init__(self) -> None:
        self.ms: list[float] = []
        self._take: Callable[..., None] = Snapshots.take

    def __enter__(self) -> Self:
        def take(*args: object, **more: object) -> None:
            began = time.perf_counter()
            self._take(*args, **more)
            self.ms.append((time.perf_counter() - began) * MS)

        Snapshots.take = take  # type: ignore[method-assign]  # timed
        return self

    def __exit__(self, *_: object) -> None:
        Snapshots.take = self._take  # type: ignore[method-assign]  # as it was


def main() -> None:
    """Measure and tell."""
    given = arguments(__doc__)
    pairs = QUICK_PAIRS if given.quick else PAIRS
    torch.set_num_threads(1)
    figures = []
    for name, build in MODELS.items():
        figures += measured(name, build, pairs)
    show(f"snapshot_cost ({pairs} pairs of blocks of 5 s)", figures, as_json=given.json)


def measured(name: str, build: Callable[..., Pieces], pairs: int) -> list[Figure]:
    """The slow-down of one model's training, and the stall behind it."""
    blocks = Blocks(pairs)
    with (
        tempfile.TemporaryDirectory(prefix="snapshot-cost-") as out,
        tempfile.TemporaryDirectory(prefix="snapshot-cost-", dir=SHM) as memory,
        Stalls() as stalls,
    ):
        os.environ[ENV_MEMORY_TIER] = memory
        plan = Plan.of({
            "steps": sys.maxsize,
            "out": out,
            "snapshot_s": 1e9,
            "save": {"every_s": None},
        })  # fmt: skip
        with redirect_stdout(sys.stderr):
            Trainer(plan, build(blocks)).train()
        size = sum(path.stat().st_size for path in Path(memory).rglob("state.pt"))
    ratio = Spread.of(blocks.ratios())
    stall = Spread.of(stalls.ms[1:])  # the first makes the buffers
    step_ms = INTERVAL_S / blocks.steps * MS
    note = f"steps of {step_ms:.1f} ms, {size / 2**20:,.1f} MiB a snapshot"
    spread = f"p5 {ratio.low * 100 - 100:+.2f}, p95 {ratio.high * 100 - 100:+.2f}"
    return [
        Figure(f"{name}: slower by", ratio.median * 100 - 100, "%", LIMIT_PERCENT, note=spread),
        Figure(f"{name}: training thread stalls", stall.median, "ms", note=note),
        Figure(f"{name}: the first one stalls", stalls.ms[0], "ms", note="makes its buffers"),
    ]


def digits(hook: Hook) -> Pieces:
    """The CNN of the examples on its data."""
    images, labels, train, _ = load_data()
    run = Run(0.003, total=1)
    return Pieces(run.model, loss, run.optimizer, TensorDataset(images[train], labels[train]),
                  hooks=[hook])  # fmt: skip


def large(hook: Hook, *, with_moments: bool) -> Pieces:
    """25 million weights in six layers, on numbers of chance; AdamW's moments are twice as much."""
    layers = [part for _ in range(LAYERS) for part in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(WIDTH, 10))
    data = TensorDataset(torch.randn(256, WIDTH), torch.randint(10, (256,)))
    weights = model.parameters()
    adam, sgd = torch.optim.AdamW, torch.optim.SGD
    optimizer = adam(weights, 1e-5) if with_moments else sgd(weights, 1e-3)
    return Pieces(model, loss, optimizer, data, batch_size=32, hooks=[hook])


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross entropy."""
    images, labels = batch
    return functional.cross_entropy(model(images), labels)


MODELS: dict[str, Callable[[Hook], Pieces]] = {
    "digits CNN": digits,
    "100 MB of weights, SGD": partial(large, with_moments=False),
    "100 MB of weights, AdamW": partial(large, with_moments=True),
}

if __name__ == "__main__":
    main()
