"""What a user's entry returns: the parts that a training is put together from.

Owns their types, and the words for an entry that returns something else. Never trains. Invariant:
pieces that passed `check` are enough to take a step with, as far as types can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn.modules.loss import _Loss
from torch.optim import LBFGS, Optimizer
from torch.utils.data import IterableDataset

from workers.train.errors import TrainingError
from workers.train.hooks import Hook

# What each function is called with.
CALLED_WITH = {
    "loss": ("model", "batch"),
    "collate": ("samples",),
    "evaluate": ("model",),
    "export": ("model", "folder"),
    "optimizer": ("parameters",),
}


@dataclass
class Pieces:
    """The parts of a training.

    `loss(model, batch)` returns the loss, or the loss and more metrics by name; the batch is on the
    device already. `optimizer` is one, or a function of the parameters that returns one. `data` is
    a dataset of the map style. `evaluate(model)` runs in eval mode without gradients, in one
    process. `export(model, folder)` writes what the training is for; without it, `model.pt`.
    """

    model: nn.Module
    loss: Callable[[nn.Module, Any], Tensor | tuple[Tensor, Mapping[str, Tensor | float]]]
    optimizer: Optimizer | Callable[[Iterable[Parameter]], Optimizer]
    data: Any
    batch_size: int = 32  # per process
    shuffle: bool = True
    drop_last: bool = False
    collate: Callable[[Sequence[Any]], Any] | None = None
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None
    hooks: Sequence[Hook] = ()
    export: Callable[[nn.Module, Path], None] | None = None

    def check(self, where: str) -> None:
        """Raise TrainingError, naming the field, where a part is not what it must be."""
        parts: dict[str, Any] = vars(self)  # whatever the user's function put there
        if not isinstance(parts["model"], nn.Module):
            raise _wrong(where, "model", parts["model"], "a torch.nn.Module")
        for name in CALLED_WITH:
            _check_function(where, name, parts[name])
        if not _is_whole(self.batch_size) or self.batch_size < 1:
            raise _wrong(where, "batch_size", self.batch_size, "a whole number from 1 on")
        for name in ("shuffle", "drop_last"):
            if not isinstance(parts[name], bool):  # any text is true
                raise _wrong(where, name, parts[name], "True or False")
        if not isinstance(parts["hooks"], (list, tuple)):
            raise _wrong(where, "hooks", parts["hooks"], "a list of workers.train.Hook")
        for hook in parts["hooks"]:
            if not isinstance(hook, Hook):
                raise _wrong(where, "hooks", hook, "made of instances of workers.train.Hook")
        self._check_data(where)

    def _check_data(self, where: str) -> None:
        if isinstance(self.data, (str, Mapping)):
            raise _wrong(where, "data", self.data, "a dataset: samples by number, from 0 on")
        if isinstance(self.data, IterableDataset) or not hasattr(type(self.data), "__getitem__"):
            wanted = (
                "a dataset with __len__ and __getitem__: only of such a one is the place in the "
                "data known after a restart"
            )
            raise _wrong(where, "data", self.data, wanted)
        try:
            length = len(self.data)
        except Exception:  # noqa: BLE001 - whatever it raises, it has none
            raise _wrong(where, "data", self.data, "a dataset that has a length") from None
        if length == 0:
            raise TrainingError(
                f"{where}: data is empty: there is no sample to train on", kind="bad_config"
            )


def pieces_of(build: Callable[..., Any], args: Mapping[str, Any], where: str) -> Pieces:
    """Return what an entry builds. Raises TrainingError, and whatever the entry raises."""
    if not callable(build):
        raise TrainingError(
            f"{where} is of type {type(build).__name__}, which cannot be called: name a function "
            f"that returns workers.train.Pieces",
            kind="bad_config",
        )
    try:
        with suppress(ValueError):  # a builtin that does not say; its call will
            signature(build).bind(**args)
    except TypeError as error:
        raise TrainingError(
            f"{where} cannot be called with args {dict(args)!r}: {error}", kind="bad_config"
        ) from None
    built = build(**args)
    if not isinstance(built, Pieces):
        raise TrainingError(
            f"{where} returned a {type(built).__name__}: it must return "
            f"workers.train.Pieces(model=..., loss=..., optimizer=..., data=...)",
            kind="bad_config",
        )
    built.check(where)
    return built


def optimizer_of(pieces: Pieces, where: str) -> Optimizer:
    """Return the optimizer of the model. Raises TrainingError where it is none, or another's."""
    made: Any = pieces.optimizer
    if not isinstance(made, Optimizer):
        made = made(pieces.model.parameters())
    if not isinstance(made, Optimizer):
        raise _wrong(where, "optimizer(parameters)", made, "a torch.optim.Optimizer")
    if isinstance(made, LBFGS):
        wanted = "one whose step() takes no closure: this one computes the loss several times"
        raise _wrong(where, "optimizer", made, wanted)
    own = {id(one) for one in pieces.model.parameters()}
    if not any(id(one) in own for group in made.param_groups for one in group["params"]):
        raise TrainingError(
            f"{where}: the optimizer holds no parameter of the model, so nothing would be learned: "
            f"make it from the parameters of this model",
            kind="bad_config",
        )
    return made


def _check_function(where: str, name: str, part: Any) -> None:  # noqa: ANN401 - whatever the user's function put there
    """Raise TrainingError where a part cannot be called as it will be, maybe hours later."""
    if name == "optimizer" and isinstance(part, Optimizer):
        return
    if part is None and name not in ("loss", "optimizer"):
        return
    arguments = CALLED_WITH[name]
    wanted = f"a function of ({', '.join(arguments)})"
    if name == "optimizer":
        wanted = "a torch.optim.Optimizer, or a function of the parameters that returns one"
    elif isinstance(part, _Loss):
        wanted += ", such as lambda model, batch: criterion(model(batch[0]), batch[1])"
    if not callable(part) or isinstance(part, _Loss):
        raise _wrong(where, name, part, wanted)
    try:
        with suppress(ValueError):  # a builtin that does not say; its call will
            signature(part).bind(*arguments)
    except TypeError as error:
        raise TrainingError(
            f"{where}: {name} cannot be called with ({', '.join(arguments)}): {error}",
            kind="bad_config",
        ) from None


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _wrong(where: str, name: str, value: object, wanted: str) -> TrainingError:
    kind = type(value).__name__
    shown = f" ({value!r})" if isinstance(value, (int, float, str, bool, type(None))) else ""
    return TrainingError(
        f"{where}: {name} is of type {kind}{shown}; it must be {wanted}", kind="bad_config"
    )
