"""Gathers the evidence of an ended attempt.

Owns what is looked at; draws no conclusion. Everything is read after the whole tree is gone, so
nothing can still change.
"""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass

from supervisor.core.evidence import ErrorReport, Evidence, GpuUse, Oom, SpawnError
from supervisor.core.signatures import error_line, first_root_error
from supervisor.core.state import JobState
from supervisor.runner.done import check_done
from supervisor.runner.home import AttemptFolder
from supervisor.runner.opening import OpenJob
from supervisor.watch.follow import tail
from supervisor.watch.progress import latest

TAIL_LINES = 200


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the runner knows of an end besides the journal and the files.

    `report`, `step` and `finished` are the worker's own last words, on its session; the last is
    None where there was none.
    """

    lost: bool = False
    rebooted: bool = False
    survivors: tuple[int, ...] = ()
    spawn_error: SpawnError | None = None
    oom_kills: int = 0
    oom: Oom | None = None
    no_room: str = ""
    gpu_curve: tuple[GpuUse, ...] = ()
    report: ErrorReport | None = None
    step: int | None = None
    finished: bool | None = None


def gather(job: OpenJob, state: JobState, around: Circumstances) -> Evidence:
    """The evidence of attempt `state.attempt`, whose main process has ended."""
    folder = job.folder.attempt(state.attempt)
    lines: list[str] = []
    with suppress(OSError):  # the output is evidence, not a condition
        lines = tail(folder.log, TAIL_LINES)
    status_known = state.exit_code is not None or state.signal is not None
    # A lost runner explains an end only where nothing else that is journaled does.
    killed_by_us = state.fired is not None or (state.breach and not state.breach.limit.asks)
    unexplained = around.lost and not status_known and not killed_by_us
    done, done_detail = check_done(job, state, folder)
    if done and job.spec.train is not None and around.finished is False:
        done, done_detail = False, "the trainer did not say that it had finished"
    step = _last_step(job, state, lines) if around.step is None else around.step
    return Evidence(
        exit_code=state.exit_code,
        signal=state.signal,
        spawn_error=around.spawn_error,
        runner_lost=unexplained and not around.rebooted,
        host_rebooted=unexplained and around.rebooted,
        stop_requested=state.stop_requested,
        deadline=state.fired,
        deadline_s=None if state.fired is None else state.timeouts.of(state.fired),
        survivors=around.survivors,
        oom_kills=around.oom_kills,
        oom=around.oom,
        breach=state.breach,
        hang=state.seen,
        no_room=around.no_room,
        gpus=state.gpus,
        gpu_troubles=state.troubles,
        gpu_curve=around.gpu_curve,
        done=done,
        done_detail=done_detail,
        report=around.report,
        root_error=None if state.exit_code == 0 else first_root_error(lines),
        error_line=None if state.exit_code == 0 else error_line(lines),
        step=step,
        resumed_step=state.resumed_step,
        checkpoint_step=state.best_checkpoint,
        progressed=_progressed(state, step),
    )


def _last_step(job: OpenJob, state: JobState, lines: list[str]) -> int | None:
    """Where it was when it ended; one that never got on is where it began."""
    said = latest(job.settings.parser, lines)
    if said is not None and said.step is not None:
        return said.step
    return state.resumed_step if state.step is None else state.step


def _progressed(state: JobState, step: int | None) -> bool:
    """Whether the attempt got anywhere: a step beyond where it began, or a new checkpoint."""
    if step is not None and step > (state.resumed_step or 0):
        return True
    return state.saved_step is not None


def write_evidence(folder: AttemptFolder, seen: Evidence) -> None:
    """Leave the evidence beside the log. The journal has it too, so a full disk loses nothing."""
    with suppress(OSError):
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.evidence.write_text(json.dumps(asdict(seen), indent=2) + "\n", encoding="utf-8")
