"""Decides when a snapshot is taken, into memory or onto disk.

Owns the clocks of both tiers, and the best evaluation so far. Never waits for a disk but at the
end, or for a best one. Invariant: when a training was stopped or has finished, a checkpoint of its
last step lies on disk before anybody is told.

What depends on time is decided by the main rank, which asks; all ranks take part at the boundary
where they have agreed. What depends on the step alone, every rank knows.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from workers import session
from workers.train.errors import TrainingError
from workers.train.hooks import FAILED, Hook, Outcome
from workers.train.snapshot import DISK, MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from workers.train.loop import Trainer
    from workers.train.plan import Save
    from workers.train.snapshot import Snapshots
    from workers.train.writer import Writer

NEVER = math.inf


class Checkpoint(Hook):
    """Takes snapshots while training, and a checkpoint at a stop and at the end."""

    def __init__(
        self, snapshots: Snapshots, writer: Writer, save: Save, every_s: float | None
    ) -> None:
        self._snapshots = snapshots
        self._writer = writer
        self._save = save
        self._every_s = {MEMORY: every_s or NEVER, DISK: save.every_s or NEVER}
        self._due = {MEMORY: NEVER, DISK: NEVER}
        self._next = NEVER  # the earlier of both
        self._best: float | None = None
        self.evaluated: Callable[[Trainer], bool] = _never
        self.settle: Callable[[], object] = _nothing
        self.losses: Callable[[], Tensor | None] = _nothing

    def before_train(self, trainer: Trainer) -> None:
        """Start the clocks. Raises TrainingError where nothing tells which one is the best."""
        if self._save.best is not None and trainer.pieces.evaluate is None:
            raise TrainingError(
                f"train.save.best is {self._save.best!r}, and the entry returns no `evaluate` "
                f"that would measure it: give it one, or leave `best` out",
                kind="bad_config",
            )
        now = time.monotonic()
        for tier in self._due:
            self._wind(tier, now)

    def after_step(self, trainer: Trainer) -> None:
        """Take what is due at this boundary."""
        if trainer.ranks.is_main and time.monotonic() >= self._next:
            self._ask(trainer)
        best = self._save.best is not None and self.evaluated(trainer)
        improved = best and trainer.ranks.is_main and self._improves(trainer)
        if trainer.agreed.stop or trainer.step == trainer.total:
            return  # what comes at the end holds it all
        steps = self._save.steps
        disk = trainer.agreed.save or (steps is not None and trainer.step % steps == 0)
        if not (disk or best or trainer.agreed.snapshot):
            return
        state = trainer.state()
        self.settle()
        if state is None or not (disk or improved or trainer.agreed.snapshot):
            return
        if self._snapshots.busy and not improved:
            self._put_off(disk=disk)
            return
        tiers = (MEMORY, DISK) if disk or improved else (MEMORY,)
        self._take(trainer, state, tiers)

    def after_train(self, trainer: Trainer, outcome: Outcome) -> None:
        """Save the last step on disk, and wait until it is there."""
        if outcome.word == FAILED:
            return
        state = trainer.state() if trainer.step > 0 else None
        if trainer.ranks.is_main:
            with session.phase("checkpoint"):
                self._writer.settle()
                if state is not None and self._snapshots.published.get(DISK) != trainer.step:
                    self._take(trainer, state, (DISK,))
                self._writer.settle()
            self._writer.check()

    def state_dict(self) -> dict[str, Any]:
        """Return the best result so far."""
        return {"best": self._best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from it."""
        self._best = state["best"]

    def release(self) -> None:
        """Say that the optimizer comes next."""
        self._snapshots.release()

    def _take(self, trainer: Trainer, state: dict[str, Any], tiers: tuple[str, ...]) -> None:
        now_known = trainer.evaluation_step == trainer.step and trainer.evaluation
        metrics = {k: v for k, v in (now_known or {}).items() if math.isfinite(v)}
        self._snapshots.take(state, trainer.step, tiers, metrics, self.losses())
        now = time.monotonic()
        for tier in tiers:
            self._wind(tier, now)

    def _ask(self, trainer: Trainer) -> None:
        """Ask for what is due, once, unless one is still under way."""
        if self._snapshots.busy:
            return
        trainer.ask("save" if time.monotonic() >= self._due[DISK] else "snapshot")
        self._next = NEVER  # until it is taken

    def _put_off(self, *, disk: bool) -> None:
        """Ask again as soon as the one that is under way is done; for memory, when it is due."""
        now = time.monotonic()
        self._due[DISK if disk else MEMORY] = now
        self._next = now

    def _wind(self, tier: str, now: float) -> None:
        """Set a tier's clock to one interval from now."""
        if tier == MEMORY and not self._snapshots.has_memory:
            self._every_s[MEMORY] = NEVER
        self._due[tier] = now + self._every_s[tier]
        self._next = min(self._due.values())

    def _improves(self, trainer: Trainer) -> bool:
        """Tell whether the newest evaluation is the best so far, and remember it if it is."""
        value = (trainer.evaluation or {}).get(self._save.best or "", math.nan)
        if math.isnan(value):
            return False
        sign = 1 if self._save.mode == "max" else -1
        if self._best is not None and sign * value <= sign * self._best:
            return False
        self._best = value
        return True


class Release(Hook):
    """Lets the optimizer wait for the copies of the last snapshot; first in the list."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint

    def after_backward(self, trainer: Trainer) -> None:
        """The weights change next."""
        del trainer
        self._checkpoint.release()


def _never(trainer: Trainer) -> bool:
    del trainer
    return False


def _nothing() -> None:
    """Have nothing to settle, and no losses to look at."""
