"""The series of a training: a line for each step that has one, in a file and for TensorBoard.

Owns `metrics.jsonl` and `evaluations.jsonl` from their opening to their end. Never raises what is
not for people. Invariant: after any number of kills a series has every step once, with the bytes
that an undisturbed run would have written.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from workers.faults import kind_of
from workers.train.errors import TrainingError, kind_of_place
from workers.train.hooks import FAILED, Hook, Outcome
from workers.train.steplog import StepLog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workers.train.loop import Trainer
    from workers.train.writer import Writer

METRICS_FILE = "metrics.jsonl"
EVALUATIONS_FILE = "evaluations.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
CLOSE_S = 10.0  # how long a training that failed waits for what it had given to its writer


class Series:
    """One file of lines, and the same values for TensorBoard; a sink of the writer."""

    def __init__(self, path: Path, prefix: str = "") -> None:
        self.path = path
        self.board: Board | None = None
        self._prefix = prefix
        self._log: StepLog | None = None

    def begin(self, step: int) -> None:
        """Keep the lines up to a step, and go on behind them. Raises TrainingError."""
        try:
            self._log = StepLog(self.path)
            self._log.cut(step)
        except OSError as error:
            raise TrainingError(
                f"cannot write {self.path}: {error.strerror}", kind=kind_of_place(error)
            ) from error

    def write(self, items: list[dict[str, float]]) -> None:
        """Append a line for each; all of them have a step. Raises TrainingError."""
        self.append("".join(map(_line, items)), items)

    def append(self, text: str, rows: list[dict[str, float]]) -> None:
        """Append lines, and the rows that they are made from. Raises TrainingError."""
        if self._log is None:
            raise ValueError(f"{self.path} was not begun")
        try:
            self._log.append(text)
        except OSError as error:
            raise self._unwritten(error) from error
        if self.board is not None:
            self.board.add(self._prefix, rows)

    def sync(self) -> None:
        """Have all of it survive the host. Raises TrainingError."""
        if self._log is not None:
            try:
                self._log.sync()
            except OSError as error:
                raise self._unwritten(error) from error

    def close(self) -> None:
        """Close the file."""
        if self._log is not None:
            self._log.close()

    def _unwritten(self, error: OSError) -> TrainingError:
        return TrainingError(
            f"cannot write {self.path}: {error.strerror}; the checkpoints and the lines before it "
            f"are whole, and the training can go on from there",
            kind=kind_of(error),
        )


class Logs(Hook):
    """Opens the series of the main rank, and closes them when all is written; last in the list."""

    def __init__(self, folder: Path, writer: Writer, *, tensorboard: bool) -> None:
        self.metrics = Series(folder / METRICS_FILE)
        self.evaluations = Series(folder / EVALUATIONS_FILE, "evaluation/")
        self._folder = folder
        self._writer = writer
        self._tensorboard = tensorboard

    def before_train(self, trainer: Trainer) -> None:
        """Cut off what is to be done again. Raises TrainingError."""
        if not trainer.ranks.is_main:
            return
        for series in (self.metrics, self.evaluations):
            series.begin(trainer.step)
        if self._tensorboard:
            board = Board(self._folder / TENSORBOARD_FOLDER, trainer.step)
            self.metrics.board = self.evaluations.board = board

    def after_train(self, trainer: Trainer, outcome: Outcome) -> None:
        """End the writer, then close. Raises what it failed with."""
        del trainer
        self._writer.close(CLOSE_S if outcome.word == FAILED else None)
        if self.metrics.board is not None:
            self.metrics.board.close()
        self.metrics.close()
        self.evaluations.close()
        if outcome.word != FAILED:
            self._writer.check()


class Board:
    """TensorBoard's events, beginning behind a step. Raises TrainingError where it is missing."""

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - seldom asked for
        except ImportError as error:
            raise TrainingError(
                f"train.metrics.tensorboard needs the package tensorboard where the job runs "
                f"({error}): {sys.executable} -m pip install tensorboard",
                kind="bad_config",
            ) from None
        self._events = SummaryWriter(str(folder), purge_step=step + 1)

    def add(self, prefix: str, rows: list[dict[str, float]]) -> None:
        """Add every value of the rows but their step."""
        for row in rows:
            for name, value in row.items():
                if name != "step":
                    self._events.add_scalar(prefix + name, value, int(row["step"]))

    def close(self) -> None:
        """Write what is left."""
        self._events.close()


def _line(values: Mapping[str, float]) -> str:
    fields = [f"{json.dumps(name)}:{number(values[name])}" for name in sorted(values)]
    return f"{{{','.join(fields)}}}\n"


def number(value: float) -> str:
    """Return a number as JSON has it: what is not finite is null."""
    return repr(value) if value - value == 0 else "null"
