"""Says how far a training is: to the session at every step, to people now and then.

Owns the line `step 120/3000 epoch 3/45 loss 0.1234 lr 0.003 251.0 it/s`. Never waits for a value:
metrics are the newest that have arrived. Invariant: only the main rank speaks.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from workers import session
from workers.train.hooks import FAILED, Hook, Outcome
from workers.train.metrics import epoch_done

if TYPE_CHECKING:
    from workers.train.loop import Trainer

LINE_S = 5.0
TAKEN = ("step", "total")  # parameters of session.progress


class Progress(Hook):
    """Reports every step, and prints a line at most every few seconds and one at the end."""

    def __init__(self) -> None:
        self._due = 0.0
        self._since = (0, 0.0)  # step and time of the last line
        self._known: tuple[object, object] = (None, None)
        self._metrics: dict[str, float] = {}

    def before_train(self, trainer: Trainer) -> None:
        """Begin to measure the speed."""
        self._since = (trainer.step, time.monotonic())

    def after_step(self, trainer: Trainer) -> None:
        """Report; print where it is time."""
        if not trainer.ranks.is_main:
            return
        newest = (trainer.latest, trainer.evaluation)
        if newest[0] is not self._known[0] or newest[1] is not self._known[1]:
            self._known = newest
            together = {**(newest[1] or {}), **newest[0]}
            self._metrics = {key: one for key, one in together.items() if key not in TAKEN}
        session.progress(trainer.step, trainer.total, **self._metrics)
        now = time.monotonic()
        if now >= self._due:
            self._print(trainer, now)

    def after_train(self, trainer: Trainer, outcome: Outcome) -> None:
        """Print where it ended."""
        if trainer.ranks.is_main and outcome.word != FAILED and trainer.step != self._since[0]:
            self._print(trainer, time.monotonic())

    def _print(self, trainer: Trainer, now: float) -> None:
        step, then = self._since
        epoch = epoch_done(trainer)
        epochs = f"/{trainer.plan.epochs}" if trainer.plan.epochs is not None else ""
        words = [f"step {trainer.step}/{trainer.total} epoch {epoch}{epochs}"]
        if "loss" in trainer.latest:
            words.append(f"loss {trainer.latest['loss']:.4f}")
        words.append(f"lr {float(trainer.optimizer.param_groups[0]['lr']):.4g}")
        if now > then:
            words.append(f"{(trainer.step - step) / (now - then):.1f} it/s")
        print(" ".join(words), flush=True)
        self._since, self._due = (trainer.step, now), now + LINE_S
