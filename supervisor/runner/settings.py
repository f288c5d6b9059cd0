"""What a frozen job means to its runner: absolute paths, numbers, tables.

Owns the translation from `spec` to the types of the floors below it. Pure but for `Path.absolute`.
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from supervisor.checkpoint import (
    Layout,
    StepFromJson,
    StepFromName,
    StepFromPointer,
    StepSource,
)
from supervisor.core.batch.state import Isolation, Rules
from supervisor.core.cadence import LONGEST_S
from supervisor.core.causes import Cause
from supervisor.core.deadlines import Timeouts
from supervisor.core.decide import Backoff, Policy
from supervisor.spec import sections
from supervisor.spec.batch import BatchPlan, batch_of
from supervisor.spec.batch_sections import Chunks
from supervisor.spec.job import JobSpec
from supervisor.spec.paths import Paths, resolve
from supervisor.spec.presets import MANIFEST, PUBLISHED
from supervisor.spec.resources import Resources
from supervisor.watch.progress import Progress, parser_for

# Words of `restart.on`: what a crew does by itself, and what it leaves to the rule of its attempt.
_OF_ITEMS = frozenset({"shrink_chunk", "quarantine_item"})
_ENDS_ALL = frozenset({"hold", "give_up", "retry_other_gpu"})


@dataclass(frozen=True, slots=True)
class DoneRule:
    """job.yaml's `done`: every condition that is not None must hold."""

    step: int | None
    file: Path | None
    regex: str | None
    exit_code: int


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """What is asked of a batch job. `timeouts` are those of each worker, `gpus` what each gets."""

    plan: BatchPlan
    rules: Rules
    timeouts: Timeouts
    gpus: int


@dataclass(frozen=True, slots=True)
class Settings:
    """All that a runner needs of a job. `timeouts` are those of an attempt as a whole.

    `snapshots`: its checkpoints may lie in memory, too.
    """

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
    snapshots: bool
    batch: BatchSettings | None

    @classmethod
    def of(cls, spec: JobSpec) -> "Settings":
        """The settings of an accepted job."""
        paths = resolve(spec)
        batch = _batch(spec)
        timeouts = _timeouts(spec.timeouts)
        resources = spec.resources
        if batch is not None:  # a crew as a whole is never silent: each worker is watched by itself
            timeouts = replace(timeouts, startup_s=None, heartbeat_s=None, heartbeat_auto=False)
            gpus = resources.gpus * batch.rules.parallel
            resources = resources.model_copy(update={"gpus": gpus})
        return cls(
            cwd=paths.cwd,
            timeouts=timeouts,
            policy=_policy(spec.restart, poison_fails=bool(batch and batch.rules.poison_fails)),
            layout=_layout(spec, paths),
            keep=None if spec.checkpoint is None else spec.checkpoint.keep,
            in_place=spec.resume.mode == "inplace",
            stop_signals=tuple(signal.Signals[f"SIG{name}"] for name in spec.stop.signals),
            done=_done(spec, paths),
            parser=parser_for(spec.progress.parse, spec.progress.pattern),
            resources=resources,
            signs=frozenset(spec.liveness),
            snapshots=_snapshots(spec),
            batch=batch,
        )


def _batch(spec: JobSpec) -> BatchSettings | None:
    plan, given = batch_of(spec), spec.chunks or Chunks.model_construct()
    if plan is None:
        return None
    rules = Rules(
        size=given.size,
        parallel=given.parallel,
        # A worker that waits would hold a GPU's memory; without GPUs it only saves time.
        spare=1 if spec.warm and not spec.resources.gpus else 0,
        batch=plan.batch,
        isolation=Isolation(given.isolation),
        items=given.recycle.items,
        age_s=given.recycle.age_s,
        host_growth_bytes=given.recycle.host_growth_bytes,
        gpu_growth_bytes=given.recycle.gpu_growth_bytes,
        poison_fails=given.poison == "fail",
        shrinks=spec.restart.on.get(Cause.CUDA_OOM) != "quarantine_item",
        fatal=frozenset(cause for cause, word in spec.restart.on.items() if word in _ENDS_ALL),
        item_s=spec.timeouts.item_s,
        chunk_s=spec.timeouts.chunk_s,
    )
    return BatchSettings(plan, rules, _timeouts(spec.timeouts), spec.resources.gpus)


def _timeouts(given: sections.Timeouts) -> Timeouts:
    auto = given.heartbeat_s == "auto"
    heartbeat_s = LONGEST_S if given.heartbeat_s == "auto" else given.heartbeat_s
    return Timeouts(given.startup_s, heartbeat_s, given.stop_s, given.total_s, heartbeat_auto=auto)


def _policy(given: sections.Restart, *, poison_fails: bool) -> Policy:
    wait = given.backoff
    poison = {Cause.POISON_ITEM: "give_up"} if poison_fails else {}
    return Policy(
        budget=given.budget,
        window_s=given.window_s,
        backoff=Backoff(wait.initial_s, wait.max_s, wait.factor, wait.jitter),
        on={**poison, **{cause: word for cause, word in given.on.items() if word not in _OF_ITEMS}},
    )


def _done(spec: JobSpec, paths: Paths) -> DoneRule | None:
    given = spec.done
    asks = not (given.step is None and given.file is None and given.regex is None)
    # The trainer's exit code 0 says that it is done, also when it was asked to stop just then; what
    # any other program means by it then, nobody knows.
    if not asks and not given.exit and spec.train is None:
        return None
    return DoneRule(given.step, paths.done_file, given.regex, given.exit or 0)


def _snapshots(spec: JobSpec) -> bool:
    """Whether checkpoints are published whole, and a restart is told which one to go on from."""
    if spec.checkpoint is None or spec.resume.mode in {"none", "inplace"}:
        return False
    wanted = spec.train is None or spec.train.snapshot_s is not None
    published = spec.checkpoint.glob == PUBLISHED and MANIFEST in spec.checkpoint.require
    return wanted and published


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
