"""The processes that train one model together: which one this is, and what they say to each other.

Owns the process groups. Never touches a model. Invariant: collectives are issued by the main thread
alone, in the same order in every rank; one process alone needs none, and every method still works.

What all must agree on is decided by the main rank and travels beside the training: the broadcast
that begins at one step boundary is read at the next, so nobody waits for it.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from workers.train.errors import TrainingError

# Others wait for the main rank while it evaluates; it is the supervisor that finds a hang.
PATIENCE = timedelta(hours=2)


class Mean:
    """A mean over the ranks that is being computed; `wait` returns it."""

    def __init__(self, total: Tensor, count: int, work: Any = None) -> None:  # noqa: ANN401 - torch.distributed's
        self._total = total
        self._count = count
        self._work = work

    def wait(self) -> Tensor:
        """Return the mean; on a GPU the current stream waits, not the caller."""
        if self._work is None:
            return self._total
        self._work.wait()
        return self._total / self._count


class Ranks:
    """This process among `size` equals. `local` is its number on this host."""

    def __init__(self, rank: int = 0, size: int = 1, local: int = 0) -> None:
        self.rank = rank
        self.size = size
        self.local = local
        self.is_main = rank == 0
        self._control: Any = None
        self._pending: tuple[Any, Tensor] | None = None

    @classmethod
    def of_environment(cls) -> Ranks:
        """Return what torchrun says. Raises TrainingError for numbers that make no sense."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        given = {name: os.environ.get(name) for name in names}
        if given["RANK"] is None or given["WORLD_SIZE"] is None:
            return cls()
        try:
            rank, size, local = (int(given[name] or 0) for name in names)
        except ValueError:
            rank, size, local = -1, 0, 0
        if not 0 <= rank < size:
            words = ", ".join(f"{name}={value}" for name, value in given.items())
            raise TrainingError(
                f"the launcher's variables make no sense: {words}", kind="bad_config"
            )
        return cls(rank, size, local)

    def start(self, device: torch.device) -> None:
        """Meet the others."""
        if self.size == 1:
            return
        if device.type == "cuda":
            torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=PATIENCE)
        self._control = dist.new_group(backend="gloo", timeout=PATIENCE)

    def close(self) -> None:
        """Wait for the others and part. After an error do not call it: nobody may come."""
        if self.size == 1 or self._control is None:
            return
        if self._pending is not None:
            self._pending[0].wait()
            self._pending = None
        dist.barrier(group=self._control)
        self._control = None
        dist.destroy_process_group()

    def gather(self, value: Any) -> list[Any] | None:  # noqa: ANN401 - plain values and tensors
        """Return every rank's value in the main rank, None in the others."""
        if self.size == 1:
            return [value]
        gathered: list[Any] | None = [None] * self.size if self.is_main else None
        dist.gather_object(value, gathered, dst=0, group=self._control)
        return gathered

    def mean(self, vector: Tensor) -> Mean:
        """Begin to average a vector over all ranks. Its content is gone."""
        if self.size == 1:
            return Mean(vector, 1)
        group = None if vector.device.type == "cuda" else self._control
        return Mean(vector, self.size, dist.all_reduce(vector, group=group, async_op=True))

    def agree(self, bits: int) -> int:
        """Return the main rank's bits: of this boundary if it is alone, else of the last one."""
        if self.size == 1:
            return bits
        agreed = self._arrived()
        said = torch.tensor([bits])
        self._pending = (dist.broadcast(said, 0, group=self._control, async_op=True), said)
        return agreed

    def _arrived(self) -> int:
        if self._pending is None:
            return 0
        work, said = self._pending
        work.wait()
        return int(said)
