"""The command line of an attempt.

Owns how `resume` changes the command; starts nothing.
Invariant: the first attempt never sees a placeholder, a resumed one never an unfilled one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from supervisor.spec.job import JobSpec
from supervisor.spec.paths import resolve
from supervisor.spec.placeholders import fill


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


def first_launch(spec: JobSpec) -> Launch:
    """Return what starts the job at zero."""
    return Launch(spec.command or ())


def resume_launch(spec: JobSpec, point: ResumePoint) -> Launch:
    """Return what continues the job from a checkpoint; the first launch in the mode none."""
    resume, command = spec.resume, spec.command or ()
    if resume.mode == "none":
        return Launch(command)
    folder = resolve(spec).checkpoints or point.path.parent
    values = {"path": str(point.path), "step": str(point.step), "dir": str(folder)}
    argv = tuple(fill(text, values) for text in resume.argv)
    env = {name: fill(text, values) for name, text in resume.env.items()}
    return Launch(argv if resume.mode == "replace" else command + argv, env)
