"""A trainer without a loop, for the tests of hooks: what they look at, and nothing that trains."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from workers.train.hooks import FAILED, FINISHED, STOPPED, Hook, Outcome
from workers.train.plan import Plan

NOTHING = SimpleNamespace(snapshot=False, save=False, stop=False)


class Pending:
    """A mean that the test resolves when it likes."""

    def __init__(self, vector: torch.Tensor) -> None:
        self.vector = vector
        self.waited = False

    def wait(self) -> torch.Tensor:
        """Return what the other rank's share makes of it: it has measured twice as much."""
        self.waited = True
        return self.vector * 1.5


class FakeRanks:
    """One process, or one of two of which nobody sees the other."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size, self.is_main = rank, size, rank == 0
        self.means: list[Pending] = []

    def mean(self, vector: torch.Tensor) -> Pending:
        """Begin a mean."""
        self.means.append(Pending(vector))
        return self.means[-1]


class FakeTrainer:
    """Ten steps an epoch; `stepped` does what the loop does around the hooks of one step."""

    def __init__(self, out: Path, *, total: int = 100, evaluate: Any = None, **plan: Any) -> None:
        if "every" in plan:  # of evaluations; `evaluate` is the function here
            plan["evaluate"] = plan.pop("every")
        self.plan = Plan.of({"steps": total, "out": str(out), **plan})
        self.pieces = SimpleNamespace(evaluate=evaluate, hooks=())
        self.ranks: Any = FakeRanks()
        self.device = torch.device("cpu")
        self.model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.5, momentum=0.9)
        self.scaler: Any = None
        self.step, self.total, self.epoch, self.samples = 0, total, 0, 0
        self.steps_per_epoch = 10
        self.indices: list[int] = []
        self.metrics: dict[str, torch.Tensor] = {}
        self.latest: dict[str, float] = {}
        self.evaluation: dict[str, float] | None = None
        self.evaluation_step: int | None = None
        self.agreed: Any = NOTHING
        self.asked: list[str] = []
        self.states = 0

    def ask(self, word: str) -> None:
        """Note what was asked for."""
        self.asked.append(word)

    def state(self) -> dict[str, Any] | None:
        """Return a state of live tensors."""
        self.states += 1
        if not self.ranks.is_main:
            return None
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def stepped(self, *hooks: Hook, loss: float | None = None) -> None:
        """Take one step without any learning."""
        for hook in hooks:
            hook.before_step(self)
        loss = 1 / (self.step + 1) if loss is None else loss
        self.metrics = {"loss": torch.tensor(loss)}
        self.indices = [2 * self.step, 2 * self.step + 1]
        for hook in hooks:
            hook.after_backward(self)
        self.step += 1
        self.samples += 4
        if self.step % self.steps_per_epoch == 0:
            self.epoch, self.samples = self.epoch + 1, 0
        asked, self.asked = self.asked, []
        self.agreed = SimpleNamespace(**{word: word in asked for word in vars(NOTHING)})
        for hook in hooks:
            hook.after_step(self)

    def begin(self, *hooks: Hook) -> None:
        """Begin as the loop does."""
        for hook in hooks:
            hook.before_train(self)

    def end(self, *hooks: Hook, word: str = "") -> None:
        """End as the loop does."""
        word = word or (FINISHED if self.step == self.total else STOPPED)
        error = RuntimeError("boom") if word == FAILED else None
        for hook in hooks:
            hook.after_train(self, Outcome(word, self.step, self.total, error))
