"""Profiles a few steps on request, with torch's own profiler.

Owns the trace `profile/step-N.json` in the training's folder, N being the last step in it, for
chrome://tracing or Perfetto. Never runs but in the main rank. Invariant: a trace has its name only
when it is whole.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from workers.train.hooks import Hook, Outcome

if TYPE_CHECKING:
    from workers.train.loop import Trainer
    from workers.train.plan import Profile

FOLDER = "profile"


class Profiler(Hook):
    """Profiles the steps after `start`, as many as were asked for; a resumed run the rest."""

    def __init__(self, profile: Profile) -> None:
        self._first = profile.start
        self._end = profile.start + profile.steps
        self._running: Any = None

    def before_step(self, trainer: Trainer) -> None:
        """Begin where the first of them comes next."""
        if self._running is not None or not self._first <= trainer.step < self._end:
            return
        if trainer.ranks.is_main:
            self._running = torch.profiler.profile()
            self._running.start()

    def after_step(self, trainer: Trainer) -> None:
        """End behind the last of them."""
        if self._running is not None and trainer.step >= self._end:
            self._stop(trainer)

    def after_train(self, trainer: Trainer, outcome: Outcome) -> None:
        """Keep what was profiled, however it ended."""
        del outcome
        if self._running is not None:
            self._stop(trainer)

    def _stop(self, trainer: Trainer) -> None:
        running, self._running = self._running, None
        running.stop()
        path = Path(trainer.plan.out) / FOLDER / f"step-{trainer.step}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        running.export_chrome_trace(str(partial))
        partial.replace(path)
        print(f"profile of the steps up to {trainer.step}: {path}", flush=True)
