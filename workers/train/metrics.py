"""What every step measured, averaged over the ranks, on its way to `metrics.jsonl`.

Owns which values a line has, and that they are copied before anybody changes them. Never waits for
the GPU: values are copied aside and read by the writer's thread. Invariant: all ranks begin the
same averages in the same order, in their main threads.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from workers.train.capture import host_copy
from workers.train.errors import TrainingError
from workers.train.hooks import FAILED, Hook, Outcome
from workers.train.series import number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from workers.train.loop import Trainer
    from workers.train.ranks import Mean
    from workers.train.series import Series
    from workers.train.writer import Writer

OURS = ("epoch", "lr", "step")


class Row(NamedTuple):
    """What one step measured; `vector` may be read once `copied` has happened."""

    step: int
    epoch: int
    rate: float
    names: tuple[str, ...]
    vector: Tensor
    copied: Any = None  # the event of a GPU


class MetricLog(Hook):
    """Gives each measured step's metrics to the writer, averaged over the ranks; also the sink."""

    def __init__(self, writer: Writer, series: Series, every: int) -> None:
        self._writer = writer
        self._series = series
        self._every = every
        self._pending: tuple[Row, Mean] | None = None
        self._trainer: Trainer | None = None
        self._forms: dict[tuple[str, ...], tuple[str, tuple[str, ...]]] = {}

    def before_train(self, trainer: Trainer) -> None:
        """Remember whom the newest values are for."""
        self._trainer = trainer

    def after_step(self, trainer: Trainer) -> None:
        """Take this step's values, of which the last step's mean may have arrived by now."""
        self.settle()
        if trainer.step % self._every:
            return
        names = tuple(trainer.metrics)
        row = Row(
            trainer.step,
            epoch_done(trainer),
            float(trainer.optimizer.param_groups[0]["lr"]),
            names,
            _stacked(trainer.metrics),
        )
        if trainer.ranks.size > 1:
            self._pending = (row, trainer.ranks.mean(row.vector))
        else:
            self._give(row)

    def settle(self) -> None:
        """Give the writer what is still being averaged; before a snapshot of the same step."""
        if self._pending is not None:
            row, mean = self._pending
            self._pending = None
            self._give(row._replace(vector=mean.wait()))

    def after_train(self, trainer: Trainer, outcome: Outcome) -> None:
        """Have the last line written; of ranks that lost each other nothing can be had."""
        del trainer
        if outcome.word != FAILED:
            self.settle()

    def write(self, items: list[Row]) -> None:
        """Write rows in bulk, on the writer's thread. Raises TrainingError."""
        rows, texts = [], []
        for row in items:
            if row.copied is not None:
                row.copied.synchronize()
            values: dict[str, float] = dict(zip(row.names, row.vector.tolist()))  # noqa: B905 - `strict` is of 3.10
            values |= {"epoch": row.epoch, "lr": row.rate, "step": row.step}
            form, order = self._forms.get(row.names) or self._form(row.names)
            texts.append(form % tuple([number(values[name]) for name in order]))
            rows.append(values)
        self._series.append("".join(texts), rows)
        if self._trainer is not None:
            self._trainer.latest = {**rows[-1]}

    def _give(self, row: Row) -> None:
        if self._trainer is None or not self._trainer.ranks.is_main:
            return
        if row.vector.device.type == "cuda":
            vector, copied = host_copy(row.vector)
            row = row._replace(vector=vector, copied=copied)
        self._writer.put(self, row)

    def _form(self, names: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        """Return the line of these names with a place for each number, and their order."""
        taken = [name for name in names if name in OURS]
        if taken:
            raise TrainingError(
                f"the loss function returns a metric named {taken[0]!r}, which is a name of the "
                f"trainer's own ({', '.join(OURS)}): give it another one",
                kind="bad_config",
            )
        order = tuple(sorted((*names, *OURS)))
        fields = ",".join(f"{json.dumps(name).replace('%', '%%')}:%s" for name in order)
        self._forms[names] = (f"{{{fields}}}\n", order)
        return self._forms[names]


def epoch_done(trainer: Trainer) -> int:
    """Return the epoch of the step just done, counted from 1 as people do."""
    return trainer.epoch + (1 if trainer.samples else 0)


def _stacked(metrics: Mapping[str, Tensor]) -> Tensor:
    """Return the values as one vector of their own: nobody changes it later."""
    values = list(metrics.values())
    kind, device = values[0].dtype, values[0].device
    if any(one.dtype != kind or one.dim() or one.device != device for one in values):
        values = [one.detach().reshape(()).to(device, torch.float64) for one in values]
    return torch.stack(values)
