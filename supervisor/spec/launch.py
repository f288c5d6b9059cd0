"""The command line of an attempt.

Owns how `resume` changes the command, and how the built-in trainer is started; starts nothing.
Invariant: the first attempt never sees a placeholder, a resumed one never an unfilled one.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from supervisor.spec.job import JobSpec
from supervisor.spec.paths import interpreter, resolve
from supervisor.spec.placeholders import fill
from supervisor.spec.train import TrainPlan, train_of
from workers import protocol

TRAIN: Final = "train"  # the word that makes the file of our workers a trainer
# One file of our own, so that torchrun needs no port that another job may have; and no more threads
# than there are processes. Both only where nobody has said otherwise.
_OF_TORCHRUN: Final = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class Launch:
    """What to start: the arguments, and the variables set beyond `environment`."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """The checkpoint an attempt continues from."""

    path: Path
    step: int


def first_launch(spec: JobSpec, environ: Mapping[str, str] | None = None) -> Launch:
    """Return what starts the job at zero.

    `environ` is the environment the worker starts from; default: that of this process.
    """
    plan = train_of(spec)
    if plan is None:
        return Launch(spec.command or ())
    base = os.environ if environ is None else environ
    python = interpreter(spec, base)
    worker = (protocol.WORKERS_FILE, TRAIN, plan.to_json())
    if plan.processes == 1:
        return Launch((python, *worker))
    unsaid = _OF_TORCHRUN.keys() - spec.env.keys() - base.keys()
    env = {name: value for name, value in _OF_TORCHRUN.items() if name in unsaid}
    return Launch((python, *torchrun(plan), *worker), env)


def resume_launch(
    spec: JobSpec, point: ResumePoint, environ: Mapping[str, str] | None = None
) -> Launch:
    """Return what continues the job from a checkpoint; the first launch in the mode none."""
    resume, first = spec.resume, first_launch(spec, environ)
    if resume.mode == "none":
        return first
    root = resolve(spec).checkpoints
    # A snapshot lies in memory, elsewhere.
    folder = root if root and point.path.is_relative_to(root) else point.path.parent
    values = {"path": str(point.path), "step": str(point.step), "dir": str(folder)}
    argv = tuple(fill(text, values) for text in resume.argv)
    env = {name: fill(text, values) for name, text in resume.env.items()}
    return Launch(argv if resume.mode == "replace" else first.argv + argv, {**first.env, **env})


def torchrun(plan: TrainPlan) -> tuple[str, ...]:
    """Return the words between the interpreter and the file that several processes run.

    A failed one ends them all: starting again is the runner's, from a checkpoint that it verified.
    """
    count = str(plan.processes)
    return (
        *("-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", count, "--max-restarts", "0"),
    )
