"""Runs one training from beginning to end: what `workers/__main__.py train PLAN` starts.

Owns the order of things around the loop: what is checked, built, loaded, trained, delivered and
said. Invariant: what is wrong with the job is found before the first step and ends the process
with 2, a stop with 75; artifacts are delivered exactly once, by whichever process gets there.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from workers import entry, publishing, session
from workers.faults import STDERR_FD
from workers.train import finish, resume
from workers.train.errors import TrainingError
from workers.train.hooks import FINISHED, Outcome
from workers.train.loop import Trainer
from workers.train.pieces import Pieces, pieces_of
from workers.train.plan import Plan
from workers.train.precision import be_deterministic, device_of
from workers.train.randomness import seed_all
from workers.train.ranks import Ranks

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

EXIT_FAILED, EXIT_CONFIG = 1, 2
OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - compared with texts


def run(
    build: Callable[..., Pieces],
    /,
    *,
    args: Mapping[str, Any] | None = None,
    **plan: Any,  # noqa: ANN401 - the fields of Plan
) -> Outcome:
    """Train what `build(**args)` returns, as `plan` says (fields of Plan; durations in seconds).

    For a script of one's own; it ends with `sys.exit(outcome.exit_code)`. Goes on from the
    supervisor's checkpoint, or without one from the newest in `out`. Raises TrainingError, and
    whatever the user's code raises.
    """
    name = f"{getattr(build, '__module__', '')}:{getattr(build, '__qualname__', build)}"
    given: Any = {} if args is None else args
    given = dict(given) if isinstance(given, Mapping) else given  # else the plan refuses it
    return _reported(Plan.of({"entry": name, "args": given, **plan}), build)


def main(text: str) -> NoReturn:
    """Train as a plan in JSON says, and exit."""
    faulthandler.enable(file=STDERR_FD)
    with suppress(Exception):  # whoever forked us may have put anything in its place
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # the same
    try:
        plan = Plan.from_json(text)
        outcome = _not_left(plan, _loaded(plan.entry))
    except (TrainingError, entry.EntryProblem) as error:
        session.error(error)  # of a plan or an entry; else it was said already
        cause = error.__cause__
        if isinstance(cause, entry.CONFIG_ERRORS):
            traceback.print_exception(type(cause), cause, _theirs(cause.__traceback__))
        print(f"train: {error}", file=sys.stderr, flush=True)
        sys.exit(EXIT_CONFIG if error.kind == "bad_config" else EXIT_FAILED)
    except Exception as error:  # noqa: BLE001 - whatever the user's code raises
        session.error(error)
        trace = _theirs(error.__traceback__) or error.__traceback__
        sys.excepthook(type(error), error.with_traceback(trace), trace)  # torch's tells the rank
        sys.exit(EXIT_FAILED)
    sys.exit(outcome.exit_code)


def _not_left(plan: Plan, build: Callable[..., Pieces]) -> Outcome:
    """Train; of an exit that is not ours nobody may read that the training is complete."""
    try:
        return _reported(plan, build)
    except SystemExit as left:
        raise TrainingError(
            f"the code of {plan.entry} ended the program by sys.exit({left.code!r}), and the "
            f"training was not complete: have it raise an exception, or return"
        ) from None


def _theirs(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback from the first frame on that is not ours."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(OURS + os.sep):
        trace = trace.tb_next
    return trace


def _loaded(name: str) -> Any:  # noqa: ANN401 - whatever has that name
    try:
        return entry.load(name)
    except entry.CONFIG_ERRORS as error:
        raise _impossible(f"{name} cannot be imported", error) from error


def _built(plan: Plan, build: Callable[..., Pieces]) -> Pieces:
    try:
        return pieces_of(build, plan.args, plan.entry)
    except entry.CONFIG_ERRORS as error:
        raise _impossible(f"{plan.entry} failed", error) from error


def _impossible(what: str, error: Exception) -> TrainingError:
    """Return the error for what is the same at every start."""
    return TrainingError(f"{what}: {type(error).__name__}: {error}", kind="bad_config")


def _reported(plan: Plan, build: Callable[..., Pieces]) -> Outcome:
    try:
        return _trained(plan, build)
    except Exception as error:
        session.error(error, **getattr(error, "details", {}))
        raise


def _trained(plan: Plan, build: Callable[..., Pieces]) -> Outcome:
    ranks = Ranks.of_environment()
    if ranks.is_main:
        finish.check_out(Path(plan.out))
    if plan.deterministic:
        be_deterministic()
    ranks.start(device_of(plan.device, ranks))
    seed_all(plan.seed)  # every rank builds the same model
    trainer = Trainer(plan, _built(plan, build), ranks)
    checkpoint = _checkpoint(plan)
    if checkpoint is not None:
        trainer.load(resume.read(checkpoint), str(checkpoint))
        if ranks.is_main:
            print(f"resumed from {checkpoint} at step {trainer.step}", flush=True)
    outcome = _outcome(trainer)
    if ranks.is_main:
        _tell(trainer, outcome)
    ranks.close()
    return outcome


def _checkpoint(plan: Plan) -> Path | None:
    """Return what to go on from: what the supervisor chose, or without one the newest in `out`."""
    path = session.resume_path()
    if path is not None:
        return Path(path)
    return None if session.supervised() else publishing.newest(Path(plan.out) / finish.CHECKPOINTS)


def _outcome(trainer: Trainer) -> Outcome:
    out, ranks = Path(trainer.plan.out), trainer.ranks
    if trainer.step >= trainer.total:
        if ranks.is_main:
            beyond = f", beyond the {trainer.total} of this run" * (trainer.step > trainer.total)
            print(f"already finished at step {trainer.step}{beyond}", flush=True)
            if not finish.is_complete(out):
                finish.deliver(trainer)  # the one before ended between its last step and this
        return Outcome(FINISHED, trainer.step, trainer.total, None, ranks.is_main)
    if ranks.is_main:
        finish.invalidate(out)
    outcome = trainer.train()
    if outcome.word == FINISHED and ranks.is_main:
        finish.deliver(trainer)
    return outcome


def _tell(trainer: Trainer, outcome: Outcome) -> None:
    if outcome.word == FINISHED:
        session.finished(trainer.step)
    else:
        print(f"stopped at step {trainer.step} of {trainer.total}", flush=True)
        session.stopped(trainer.step)
