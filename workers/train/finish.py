"""What a training is for: its final artifacts, in `out` only when they are complete.

Owns `result.json`, which is written last. Never touches `out` before the training has ended, but to
see whether it can be written. Invariant: a folder with a result.json has every artifact, whole and
on the disk, whatever happened while they were written.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from workers import publishing, session
from workers.train.errors import TrainingError, kind_of_place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

    from workers.train.loop import Trainer

RESULT_FILE = "result.json"
CHECKPOINTS = "checkpoints"
OURS = (RESULT_FILE, CHECKPOINTS, "metrics.jsonl", "evaluations.jsonl", "tensorboard", "profile")
EXPORT = ".export.partial"
FULL = (errno.ENOSPC, errno.EDQUOT)


def check_out(out: Path) -> None:
    """Make the folder and that of its checkpoints, and see that they take files.

    Raises TrainingError.
    """
    for folder in (out, out / CHECKPOINTS):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            full = error.errno in FULL
            wrong = "give another folder, or the right to write there"
            raise TrainingError(
                f"train.out: {folder} cannot be written: {error.strerror}: "
                f"{'make room there' if full else wrong}",
                kind=kind_of_place(error),
            ) from error


def is_complete(out: Path) -> bool:
    """Tell whether the artifacts of a training lie there."""
    return (out / RESULT_FILE).exists()


def invalidate(out: Path) -> None:
    """Say that what lies there, of an earlier training, is not this one's result."""
    with suppress(FileNotFoundError):
        (out / RESULT_FILE).unlink()


def deliver(trainer: Trainer) -> None:
    """Write the artifacts beside, then move them to `out`; main rank alone.

    Raises TrainingError, OSError, and what the user's `export` raises.
    """
    out = Path(trainer.plan.out)
    with _beside(out) as folder:
        with session.phase("export"):
            trainer.model.eval()
            (trainer.pieces.export or _export)(trainer.model, folder)
            for path in _files(folder):
                _place(folder / path, out / path)
        text = json.dumps(_result(trainer), sort_keys=True, indent=2) + "\n"
        result = folder / RESULT_FILE
        result.write_text(text, encoding="utf-8")
        _place(result, out / RESULT_FILE)


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """Give an empty folder for the time of the export; in the job's scratch where it has one."""
    folder = (session.scratch() or out) / EXPORT
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was killed here
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _export(model: nn.Module, folder: Path) -> None:
    torch.save(model.state_dict(), folder / "model.pt")


def _files(folder: Path) -> list[Path]:
    """Return the files of an export, relative to its folder. Raises TrainingError."""
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise _refused(f"export wrote {name}, which is no plain file: write a copy of it")
        if name.parts[0] in OURS:
            raise _refused(f"export wrote {name}, a name of the trainer's own: choose another")
        if path.is_file():
            found.append(name)
    return found


def _refused(message: str) -> TrainingError:
    return TrainingError(f"{message}. The training is saved: only this is left", kind="bad_config")


def _place(source: Path, target: Path) -> None:
    """Put a file under its final name, whole and durable. Raises TrainingError."""
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source, partial)
            _sync(partial)
            partial.replace(target)
        finally:
            with suppress(OSError):
                partial.unlink()
        _sync(target.parent)
    except OSError as error:
        raise TrainingError(
            f"{target} cannot be written: {error.strerror}. The training is saved: only its "
            f"results are left to write",
            kind=kind_of_place(error),
        ) from error


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _result(trainer: Trainer) -> dict[str, Any]:
    plan = trainer.plan
    evaluation = trainer.evaluation
    return {
        "steps": trainer.step,
        "epochs": trainer.epoch,
        "evaluation": None if evaluation is None else _numbers(evaluation),
        "best": None if plan.save.best is None else _best(Path(plan.out) / CHECKPOINTS / "best"),
    }


def _best(link: Path) -> dict[str, Any] | None:
    try:
        manifest: Any = publishing.read_manifest(link)
    except (OSError, ValueError, publishing.Torn):
        return None  # there was no evaluation when a checkpoint was saved
    return {"step": manifest["step"], "metrics": _numbers(manifest["metrics"])}


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
