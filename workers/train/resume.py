"""What a checkpoint holds of a training, and how another process goes on from it.

Owns the layout of the state and all words about one that does not fit. Never reads or writes a
file beyond the checkpoint it is told to read. Invariant: nothing of the training is changed before
all of the state was found to fit.

What fits and is not the same (another seed, batch size or number of processes) is said and gone on
with; what cannot be the same training (another model, optimizer or precision) is a Mismatch.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from workers.train import randomness
from workers.train.errors import Mismatch, TrainingError
from workers.train.hooks import Hook, named
from workers.train.randomness import RANK, mixed, seed_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from workers.train.loop import Trainer

FORMAT = 1
STATE_FILE = "state.pt"
KEYS = ("step", "epoch", "samples", "model", "optimizer", "scaler", "hooks", "random", "run")
# What makes the bits of the next steps, and who can change it.
EXACT = ("seed", "batch_size", "accumulate", "samples_in_epoch", "threads", "torch")


def state_of(trainer: Trainer) -> dict[str, Any] | None:
    """Return the state in the main rank; every rank has to come here."""
    random = trainer.ranks.gather(randomness.capture(trainer.device))
    if not trainer.ranks.is_main:
        return None
    scaler = trainer.scaler
    return {
        "format": FORMAT,
        "step": trainer.step,
        "epoch": trainer.epoch,
        "samples": trainer.samples,
        "model": trainer.model.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "hooks": {
            name: hook.state_dict()
            for name, hook in named(trainer.hooks).items()
            if type(hook).state_dict is not Hook.state_dict
        },
        "random": random,
        "evaluation": {"step": trainer.evaluation_step, "metrics": trainer.evaluation},
        "run": facts(trainer),
    }


def facts(trainer: Trainer) -> dict[str, Any]:
    """Return what the state is compared by."""
    return {
        "precision": trainer.plan.precision,
        "accumulate": trainer.plan.accumulate,
        "batch_size": trainer.pieces.batch_size,
        "processes": trainer.ranks.size,
        "seed": trainer.plan.seed,
        "total": trainer.total,
        "samples_in_epoch": trainer.order.length,
        "optimizer": type(trainer.optimizer).__name__,
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
    }


def read(path: Path) -> dict[str, Any]:
    """Return the state of a checkpoint's folder. Raises TrainingError where it cannot be had."""
    file = path / STATE_FILE
    try:
        state: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch raises for such a file
        words = str(error).strip().splitlines()
        raise TrainingError(
            f"{file} cannot be loaded: {type(error).__name__}: {words[0] if words else ''}",
            kind="bad_checkpoint",
        ) from error
    missing = [key for key in KEYS if not isinstance(state, dict) or key not in state]
    if missing:
        raise TrainingError(
            f"{file} is no checkpoint of this trainer: it has no {', '.join(missing)}",
            kind="bad_checkpoint",
        )
    if state.get("format") != FORMAT:
        raise Mismatch(
            f"{file} has format {state.get('format')!r}, and this version reads {FORMAT}: go on "
            f"with the version that wrote it"
        )
    return dict(state)


def load_into(trainer: Trainer, saved: Mapping[str, Any], where: str) -> None:
    """Go on from a state. Raises Mismatch."""
    run = saved["run"]
    _check_run(trainer, run, where)
    _check_model(trainer.model.state_dict(), saved["model"], where)
    _check_optimizer(trainer.optimizer.state_dict(), saved["optimizer"], where)
    _check_place(trainer, saved, where)
    weights = OrderedDict(saved["model"])
    # The versions of its modules: the model is the same, so they are this one's.
    weights._metadata = getattr(trainer.model.state_dict(), "_metadata", {})  # type: ignore[attr-defined]  # noqa: SLF001 - torch's own name
    trainer.model.load_state_dict(weights)
    trainer.optimizer.load_state_dict(saved["optimizer"])
    if trainer.scaler is not None and saved["scaler"] is not None:
        trainer.scaler.load_state_dict(saved["scaler"])
    trainer.step, trainer.epoch = saved["step"], saved["epoch"]
    trainer.samples = saved["samples"]
    if not trainer.order.batches(trainer.samples):
        trainer.epoch, trainer.samples = trainer.epoch + 1, 0
    trainer.total = trainer.planned_total()
    evaluation = saved.get("evaluation") or {}
    trainer.evaluation, trainer.evaluation_step = evaluation.get("metrics"), evaluation.get("step")
    notes = [*_differences(trainer, run), *_load_hooks(trainer, saved["hooks"])]
    _load_random(trainer, saved["random"])
    if trainer.ranks.is_main:
        for note in notes:
            print(f"resume: {note}", file=sys.stderr, flush=True)


def _load_random(trainer: Trainer, saved: list[Any]) -> None:
    ranks = trainer.ranks
    if len(saved) == ranks.size:
        randomness.restore(saved[ranks.rank], trainer.device)
    else:  # said in _differences; numbers of its own for each rank all the same
        seed_all(mixed(trainer.plan.seed, RANK, ranks.rank, ranks.size, trainer.step))


def _load_hooks(trainer: Trainer, saved: Mapping[str, Any]) -> Iterator[str]:
    """Give every hook its state; yield what is on one side only."""
    here = {
        name: hook
        for name, hook in named(trainer.hooks).items()
        if type(hook).state_dict is not Hook.state_dict
    }
    for name, hook in here.items():
        if name in saved:
            hook.load_state_dict(saved[name])
        else:
            yield f"hook {name} has no state in the checkpoint: it begins anew"
    for name in saved:
        if name not in here:
            yield f"the checkpoint has a state of hook {name}, which this run does not have"


def _check_run(trainer: Trainer, run: Mapping[str, Any], where: str) -> None:
    mine = facts(trainer)
    if run.get("precision") != mine["precision"]:
        raise Mismatch(
            f"{where} was trained in {run.get('precision')}, and this run is in "
            f"{mine['precision']}: set train.precision to {run.get('precision')}, or start anew "
            f"(supervise run --fresh)"
        )
    if run.get("optimizer") != mine["optimizer"]:
        raise Mismatch(
            f"{where} has the state of the optimizer {run.get('optimizer')}, and this run's is "
            f"{mine['optimizer']}: use the former, or start anew (supervise run --fresh)"
        )


def _check_model(mine: Mapping[str, Any], saved: Mapping[str, Any], where: str) -> None:
    """Raise Mismatch with the first name of each sort, and how many there are."""
    told = []
    missing = [name for name in mine if name not in saved]
    unexpected = [name for name in saved if name not in mine]
    if missing:
        told.append(f"{len(missing)} of this model's tensors are not in it (first {missing[0]})")
    if unexpected:
        told.append(f"{len(unexpected)} of its tensors are not here (first {unexpected[0]})")
    other = [name for name in mine if name in saved and _form(mine[name]) != _form(saved[name])]
    if other:
        first = other[0]
        told.append(
            f"{len(other)} have another form (first {first}: {_form(saved[first])} there, "
            f"{_form(mine[first])} here)"
        )
    if told:
        raise Mismatch(
            f"{where} is of another model: {'; '.join(told)}. Build the model that it was trained "
            f"with, or start anew (supervise run --fresh)"
        )


def _check_optimizer(mine: Mapping[str, Any], saved: Mapping[str, Any], where: str) -> None:
    def sizes(state: Mapping[str, Any]) -> list[int]:
        return [len(group["params"]) for group in state["param_groups"]]

    if sizes(mine) != sizes(saved):
        raise Mismatch(
            f"{where} has an optimizer of {len(sizes(saved))} groups with {sizes(saved)} "
            f"parameters, and this run's has {len(sizes(mine))} with {sizes(mine)}: group the "
            f"parameters as before, or start anew (supervise run --fresh)"
        )


def _check_place(trainer: Trainer, saved: Mapping[str, Any], where: str) -> None:
    length, samples = trainer.order.length, saved["samples"]
    if samples and samples >= length:
        raise Mismatch(
            f"{where} is {samples} samples into its epoch of {saved['run'].get('samples_in_epoch')}"
            f", and the data has {length} now: give it all of its data back, or start anew "
            f"(supervise run --fresh)"
        )


def _differences(trainer: Trainer, run: Mapping[str, Any]) -> Iterator[str]:
    """Yield in words what the rest of this training will not have as the undisturbed one had."""
    mine = facts(trainer)
    for name in EXACT:
        if name in run and run[name] != mine[name]:
            yield (
                f"{name} was {run[name]} and is {mine[name]} now: the training goes on, but not "
                f"bit for bit as it would have"
            )
    before, now = run.get("processes"), mine["processes"]
    if before != now:
        yield (
            f"the checkpoint is of {before} processes, and now there are {now}: weights, optimizer "
            f"and the place in the data are kept; which samples share a batch, how many steps an "
            f"epoch has, and the random numbers of each process are not"
        )
    elif run.get("total") != mine["total"]:
        yield (
            f"the run was to have {run.get('total')} steps and is to have {mine['total']} now: a "
            f"schedule that depends on that goes another way"
        )


def _form(value: object) -> str:
    if not isinstance(value, torch.Tensor):
        return "no tensor"
    shape = " x ".join(map(str, value.shape)) or "one number"
    return f"{shape} {str(value.dtype).removeprefix('torch.')}"
