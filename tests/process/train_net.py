"""A training for test_train_worker.py, as a user's module has it. Owns nothing else."""

import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from workers.train import Hook, Pieces, Trainer, run


class LoaderKilled(Hook):
    """Kills one of the loader's processes, or this one, after it has told of them."""

    def __init__(self, whom: str) -> None:
        self.whom = whom

    def after_step(self, trainer: Trainer) -> None:
        """Do it after the third step."""
        if trainer.step == 3:
            pids = [child.pid for child in multiprocessing.active_children()]
            os.write(1, f"loaders {' '.join(map(str, pids))}\n".encode())
            os.kill(pids[0] if self.whom == "loader" else os.getpid(), signal.SIGKILL)


class Ones:
    """A dataset that is more than its tensors, so that its samples are fetched one by one."""

    def __len__(self) -> int:
        return 4000

    def __getitem__(self, index: int) -> Any:
        return torch.ones(2), torch.ones(1)


class At(Hook):
    """Sends this process a signal after a step, or raises."""

    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number

    def after_step(self, trainer: Trainer) -> None:
        """Do it."""
        if trainer.step == self.step:
            signal.raise_signal(self.number)


def loss(model: nn.Module, batch: Any) -> Tensor:
    """Return the loss."""
    return (model(batch[0]) - batch[1]).square().mean()


def export(model: nn.Module, folder: Path) -> None:
    """Write two files."""
    torch.save(model.state_dict(), folder / "weights.pt")
    (folder / "more").mkdir()
    (folder / "more" / "words.txt").write_text("two words\n")


def broken(model: nn.Module, folder: Path) -> None:
    """Write one, and fail at the next."""
    export(model, folder)
    raise RuntimeError("no export today")


def build(at: int = 0, number: int = signal.SIGKILL, how: str = "export") -> Pieces:
    """Return the parts; a signal comes after step `at`, in the first life only."""
    numbers = torch.arange(80, dtype=torch.float32).reshape(40, 2) / 80
    first = "SUPERVISE_RESUME_PATH" not in os.environ
    return Pieces(
        model=nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.2), nn.Linear(4, 1)),
        loss=loss,
        optimizer=lambda parameters: torch.optim.SGD(parameters, 0.05, momentum=0.9),
        data=TensorDataset(numbers, numbers.sum(1, keepdim=True)),
        batch_size=8,
        evaluate=lambda model: {"size": model[0].weight.abs().sum().item()},
        hooks=[At(at, number)] if first and at else [],
        export={"export": export, "broken": broken, "default": None}[how],
    )


def loading(whom: str) -> Pieces:
    """Return the parts of a training whose loader, or itself, is killed."""
    pieces = build()
    pieces.data, pieces.hooks, pieces.evaluate = Ones(), [LoaderKilled(whom)], None
    return pieces


def wrong() -> dict[str, int]:
    """Return something else."""
    return {"model": 3}


if __name__ == "__main__":
    sys.exit(run(build, args={"at": int(sys.argv[1])}, out=sys.argv[2], epochs=4).exit_code)
