"""Loads the model and its weights, on the CPU.

Owns the three forms that a model can have, and the words for weights that do not fit. Never runs
the model and never touches a GPU, so that a process which did this may fork. Invariant: weights are
read with `weights_only`, which runs no code of theirs.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workers.gradcam.callables import is_callable_name, load_callable
from workers.gradcam.errors import BadConfig
from workers.gradcam.exported import ExportedNetwork
from workers.gradcam.network import Network
from workers.gradcam.scripted import ScriptedNetwork

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from workers.gradcam.settings import Settings

NESTED = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts put the weights beside other things."""
PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every key."""


def load_network(settings: Settings) -> Network:
    """Return the model with its weights. Raises BadConfig for what cannot be loaded."""
    network = _network(settings)
    if settings.weights is not None:
        fit(network.module, read_weights(Path(settings.weights)), settings.weights)
    return network


def _network(settings: Settings) -> Network:
    if is_callable_name(settings.model):
        module = load_callable("gradcam.model", settings.model)(**settings.args)
        if not isinstance(module, nn.Module):
            raise BadConfig(
                f"gradcam.model: {settings.model} returned a {type(module).__name__}, "
                f"not a torch.nn.Module"
            )
        return Network(module)
    if settings.args:
        raise BadConfig("gradcam.args: only for pkg:build; a file has its model built already")
    if not Path(settings.model).is_file():
        raise BadConfig(
            f"gradcam.model: no file {settings.model} here ({Path.cwd()}); give pkg:build, "
            f"a TorchScript file, or a .pt2 file of torch.export"
        )
    return (
        _exported(settings.model) if settings.model.endswith(".pt2") else _scripted(settings.model)
    )


def _exported(path: str) -> Network:
    try:
        program = torch.export.load(path)
    except Exception as error:
        raise BadConfig(
            f"gradcam.model: {path} is no file of torch.export.save that this torch "
            f"({torch.__version__}) can read: {_first_line(error)}"
        ) from error
    return ExportedNetwork(program)


def _scripted(path: str) -> Network:
    try:
        load: Any = torch.jit.load  # which has no types
        module = load(path, map_location="cpu")
    except RuntimeError as error:
        raise BadConfig(
            f"gradcam.model: {path} is no TorchScript file: {_first_line(error)}. If it holds "
            f"weights alone, name the function that builds the model (model: pkg:build) and give "
            f"the file as weights"
        ) from error
    return ScriptedNetwork(module)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, by the names that the model gave them."""
    if not path.is_file():
        raise BadConfig(f"gradcam.weights: no file {path} here ({Path.cwd()})")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for key in NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(one, Tensor) for one in content.values()
    ):
        raise BadConfig(
            f"gradcam.weights: {path} holds no weights: a state_dict, or one under "
            f"{', '.join(NESTED)}, is wanted"
        )
    for prefix in PREFIXES:
        if content and all(name.startswith(prefix) for name in content):
            content = {name[len(prefix) :]: tensor for name, tensor in content.items()}
    return content


def fit(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load the weights into the model. Raises BadConfig with the names that do not fit."""
    wanted = module.state_dict()
    shapes = [
        f"{name} is {tuple(weights[name].shape)}, the model wants {tuple(wanted[name].shape)}"
        for name in wanted
        if name in weights and weights[name].shape != wanted[name].shape
    ]
    problems = [
        _named("missing in the file", [name for name in wanted if name not in weights]),
        _named("unknown to the model", [name for name in weights if name not in wanted]),
        _named("of another shape", shapes),
    ]
    if any(problems):
        raise BadConfig(
            f"gradcam.weights: {source} does not fit the model: {'; '.join(filter(None, problems))}"
        )
    module.load_state_dict(dict(weights))


def _read_torch(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise BadConfig(
            f"gradcam.weights: cannot read {path} with weights_only: {_first_line(error)} "
            f"(save model.state_dict() alone)"
        ) from error


def _read_safetensors(path: Path) -> Any:  # noqa: ANN401 - whatever the file holds
    try:
        from safetensors import SafetensorError  # noqa: PLC0415 - not everybody has it
        from safetensors.torch import load_file  # noqa: PLC0415 - the same
    except ImportError as error:
        raise BadConfig(
            f"gradcam.weights: {path} needs a package: pip install safetensors"
        ) from error
    try:
        return load_file(path)
    except SafetensorError as error:
        raise BadConfig(f"gradcam.weights: cannot read {path}: {_first_line(error)}") from error


def _named(what: str, names: Iterable[str]) -> str:
    listed = list(names)
    if not listed:
        return ""
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""  # noqa: PLR2004 - as shown
    return f"{len(listed)} {what}: {', '.join(listed[:3])}{more}"


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
