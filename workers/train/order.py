"""Which samples make up which batch of which epoch, as arithmetic.

Owns the order of an epoch and the position in it: how many samples all ranks together have consumed
of it. Never reads a sample. Invariant: all of it follows from the seed, the epoch and the position,
so that a run can go on anywhere, also with another number of ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from workers.train.randomness import ORDER, mixed

if TYPE_CHECKING:
    from collections.abc import Iterator


class Draw(NamedTuple):
    """The samples of one batch of one rank, and the position behind it."""

    epoch: int
    indices: list[int]
    samples: int  # consumed of the epoch by all ranks, with this batch
    places: Tensor | None = None  # the indices once more, where no process has to be sent them


@dataclass(frozen=True)
class Order:
    """The batches of one rank of `ranks`, out of `length` samples."""

    length: int
    batch_size: int
    seed: int
    rank: int = 0
    ranks: int = 1
    shuffle: bool = True
    drop_last: bool = False
    accumulate: int = 1

    @property
    def together(self) -> int:
        """How many samples all ranks consume at once."""
        return self.batch_size * self.ranks

    def batches(self, samples: int = 0) -> int:
        """Return how many batches are left in an epoch behind this position."""
        left = max(0, self.length - samples)
        return left // self.together if self.drop_last else -(-left // self.together)

    def steps(self, samples: int = 0) -> int:
        """Return how many steps are left in an epoch; the last may have fewer batches."""
        return -(-self.batches(samples) // self.accumulate)

    def draws(self, epoch: int, samples: int) -> Iterator[Draw]:
        """Yield the batches from this position on, for ever."""
        while True:
            whole = self._epoch(epoch)
            for _ in range(self.batches(samples)):
                part = whole[samples : samples + self.together]
                samples += len(part)
                mine = self._mine(part, whole)
                yield Draw(epoch, mine.tolist(), samples, mine)
            epoch, samples = epoch + 1, 0

    def _epoch(self, epoch: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(self.length)
        # Of its own: the global generator belongs to the training.
        generator = torch.Generator()
        generator.manual_seed(mixed(self.seed, ORDER, epoch))
        return torch.randperm(self.length, generator=generator)

    def _mine(self, part: Tensor, whole: Tensor) -> Tensor:
        """Return this rank's samples; a short batch is padded from the epoch's beginning."""
        if self.ranks == 1:
            return part
        missing = -len(part) % self.ranks
        if missing:
            repeated = whole.repeat(-(-missing // len(whole)))
            part = torch.cat([part, repeated[:missing]])
        return part[self.rank :: self.ranks]
