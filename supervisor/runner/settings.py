"""What a frozen job means to its runner: absolute paths, numbers, tables.

Owns the translation from `spec` to the types of the floors below it. Pure but for `Path.absolute`.
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from supervisor.checkpoint import (
    Layout,
    StepFromJson,
    StepFromName,
    StepFromPointer,
    StepSource,
)
from supervisor.core.cadence import LONGEST_S
from supervisor.core.deadlines import Timeouts
from supervisor.core.decide import Backoff, Policy
from supervisor.spec import sections
from supervisor.spec.job import JobSpec
from supervisor.spec.paths import Paths, resolve
from supervisor.spec.resources import Resources
from supervisor.watch.progress import Progress, parser_for


@dataclass(frozen=True, slots=True)
class DoneRule:
    """job.yaml's `done`: every condition that is not None must hold."""

    step: int | None
    file: Path | None
    regex: str | None
    exit_code: int


@dataclass(frozen=True, slots=True)
class Settings:
    """All that a runner needs of a job."""

    cwd: Path
    timeouts: Timeouts
    policy: Policy
    layout: Layout | None
    keep: int | None
    in_place: bool
    stop_signals: tuple[int, ...]
    done: DoneRule | None
    resources: Resources
    parser: Callable[[str], Progress | None]
    signs: frozenset[str]

    @classmethod
    def of(cls, spec: JobSpec) -> "Settings":
        """The settings of an accepted job."""
        paths = resolve(spec)
        return cls(
            cwd=paths.cwd,
            timeouts=_timeouts(spec.timeouts),
            policy=_policy(spec.restart),
            layout=_layout(spec, paths),
            keep=None if spec.checkpoint is None else spec.checkpoint.keep,
            in_place=spec.resume.mode == "inplace",
            stop_signals=tuple(signal.Signals[f"SIG{name}"] for name in spec.stop.signals),
            done=_done(spec.done, paths),
            parser=parser_for(spec.progress.parse, spec.progress.pattern),
            resources=spec.resources,
            signs=frozenset(spec.liveness),
        )


def _timeouts(given: sections.Timeouts) -> Timeouts:
    auto = given.heartbeat_s == "auto"
    heartbeat_s = LONGEST_S if given.heartbeat_s == "auto" else given.heartbeat_s
    return Timeouts(given.startup_s, heartbeat_s, given.stop_s, given.total_s, heartbeat_auto=auto)


def _policy(given: sections.Restart) -> Policy:
    wait = given.backoff
    return Policy(
        budget=given.budget,
        window_s=given.window_s,
        backoff=Backoff(wait.initial_s, wait.max_s, wait.factor, wait.jitter),
        on=given.on,
    )


def _done(given: sections.Done, paths: Paths) -> DoneRule | None:
    if given.step is None and given.file is None and given.regex is None and not given.exit:
        return None  # exit code 0 is all that is asked for
    return DoneRule(given.step, paths.done_file, given.regex, given.exit or 0)


def _layout(spec: JobSpec, paths: Paths) -> Layout | None:
    given = spec.checkpoint
    if given is None or paths.checkpoints is None or spec.resume.mode == "none":
        return None
    return Layout(
        root=paths.checkpoints,
        glob=given.glob,
        step=_step(given.step),
        require=given.require,
        forbid=given.forbid,
        pointer=None if given.pointer is None else Path(given.pointer),
    )


def _step(rule: str | sections.StepFromJson | sections.StepFromPointer | None) -> StepSource:
    match rule:
        case sections.StepFromJson(file=file, key=key):
            return StepFromJson(file, key)
        case sections.StepFromPointer(pointer=pointer):
            return StepFromPointer(pointer)
        case _:
            return StepFromName(rule)
