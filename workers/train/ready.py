"""The hooks that every training has, from its plan and its pieces, in the order that makes sense.

Owns that order and who knows whom. Never acts in training itself. Invariant: whatever measures a
step comes before what writes it down, which comes before the snapshot of that step.

    after_backward   the user's hooks see the gradients whole, then they are clipped
    after_step       evaluation, the user's hooks, guard, metrics, checkpoint, progress
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from workers import session
from workers.protocol import ENV_MEMORY_BUDGET, ENV_MEMORY_TIER
from workers.publishing import Best
from workers.train.checkpointing import Checkpoint, Release
from workers.train.clipping import Clipping
from workers.train.evaluation import Evaluation
from workers.train.guard import Guard
from workers.train.metrics import MetricLog
from workers.train.profiling import Profiler
from workers.train.progress import Progress
from workers.train.schedule import LearningRate, is_constant
from workers.train.series import Logs
from workers.train.snapshot import DISK, MEMORY, Snapshots, Tiers
from workers.train.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from workers.train.hooks import Hook
    from workers.train.loop import Trainer
    from workers.train.plan import Plan

CHECKPOINTS_FOLDER = "checkpoints"


def hooks_of(trainer: Trainer) -> list[Hook]:
    """Return them; the trainer's model, optimizer and device are there, its place not yet."""
    plan, writer = trainer.plan, Writer()
    logs = Logs(Path(plan.out), writer, tensorboard=plan.metrics.tensorboard)
    metrics = MetricLog(writer, logs.metrics, plan.metrics.every)
    guard = Guard(plan.non_finite, trainer.device, writer)
    snapshots = Snapshots(
        writer,
        tiers_of(plan),
        trainer.device,
        [name for name, _ in trainer.model.named_parameters()],
        [logs.metrics.sync, logs.evaluations.sync],
    )
    checkpoint = Checkpoint(snapshots, writer, plan.save, plan.snapshot_s)
    checkpoint.settle, checkpoint.losses = metrics.settle, guard.losses
    first: list[Hook] = [Release(checkpoint)] if trainer.device.type == "cuda" else []
    if not is_constant(plan.schedule):
        first.append(LearningRate(plan.schedule, trainer.optimizer))
    if trainer.pieces.evaluate is not None:
        evaluation = Evaluation(plan, writer, logs.evaluations)
        checkpoint.evaluated = evaluation.is_due
        first.append(evaluation)
    last: list[Hook] = [Clipping(plan.clip)] if plan.clip is not None else []
    last += [guard, metrics, checkpoint, Progress()]
    if plan.profile is not None:
        last.append(Profiler(plan.profile))
    return [*first, *trainer.pieces.hooks, *last, logs]


def tiers_of(plan: Plan) -> Tiers:
    """Return where snapshots go: to the job's memory tier too, where it has one."""
    folder = Path(plan.out) / CHECKPOINTS_FOLDER
    best = Best(plan.save.best, plan.save.mode) if plan.save.best is not None else None

    def on_disk(
        write: Callable[[Path], None], step: int, metrics: Mapping[str, float]
    ) -> Path | None:
        return session.publish(
            write, step, metrics, tier=DISK, keep=plan.save.keep, best=best, folder=folder
        )

    def in_memory(
        write: Callable[[Path], None], step: int, metrics: Mapping[str, float]
    ) -> Path | None:
        return session.publish(write, step, metrics, tier=MEMORY, keep=1)

    if not os.environ.get(ENV_MEMORY_TIER) or plan.snapshot_s is None:
        return Tiers(on_disk)
    budget = os.environ.get(ENV_MEMORY_BUDGET, "")
    return Tiers(on_disk, in_memory, float(budget) if budget.isdigit() else math.inf)
