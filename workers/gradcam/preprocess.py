"""From a picture to what the model takes.

Owns resizing and the scaling of colours. Never crops: the map is drawn over the whole picture.
Invariant: the tensor is one image, (1, C, H, W), of floats, on the CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from workers.gradcam.callables import is_callable_name, load_callable
from workers.gradcam.errors import BadConfig, suggestion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Of ImageNet, which nearly every published classifier was trained with.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
SIZE = 224
FIELDS = ("size", "mean", "std")
WHITE = 255
COLOURS = 3
IMAGE = 3


def preprocess_of(setting: str | Mapping[str, Any] | None) -> Callable[[Image.Image], Tensor]:
    """Return what a setting means: the name of a function, or size, mean and std."""
    if isinstance(setting, str):
        if not is_callable_name(setting):
            raise BadConfig(f"gradcam.preprocess: {setting!r} is not pkg:prepare")
        prepare = load_callable("gradcam.preprocess", setting)
        return lambda picture: _one_image(prepare(picture), setting)
    fields = {} if setting is None else setting
    for name in fields:
        if name not in FIELDS:
            hint = suggestion(name, FIELDS)
            raise BadConfig(f"gradcam.preprocess.{name}: no such field; {hint}")
    size = _size(fields.get("size", SIZE))
    mean, std = (_colours(fields, name, of) for name, of in (("mean", MEAN), ("std", STD)))
    if not std.all():
        raise BadConfig("gradcam.preprocess.std: is 0 for a colour")
    return lambda picture: standard(picture, size, mean, std)


def standard(
    picture: Image.Image, size: tuple[int, int], mean: np.ndarray, std: np.ndarray
) -> Tensor:
    """Resize to `size` (rows, columns), scale to 0..1, subtract `mean`, divide by `std`."""
    rows, columns = size
    resized = picture.resize((columns, rows), Image.Resampling.BILINEAR)
    # One multiplication and one addition for each number, in the layout that the model takes.
    scaled = np.asarray(resized, dtype=np.float32) * (1 / (WHITE * std)) - mean / std
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(2, 0, 1))).unsqueeze(0)


def _size(value: Any) -> tuple[int, int]:  # noqa: ANN401 - whatever stood in the file
    sides = (value, value) if isinstance(value, int) else tuple(value)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):  # noqa: PLR2004 - rows and columns
        raise BadConfig(f"gradcam.preprocess.size: {value!r} is not pixels, or [rows, columns]")
    return sides


def _colours(fields: Mapping[str, Any], name: str, default: tuple[float, ...]) -> np.ndarray:
    values = np.asarray(fields.get(name, default), dtype=np.float32)
    if values.shape != (COLOURS,):
        raise BadConfig(
            f"gradcam.preprocess.{name}: three numbers are wanted, for red, green, blue"
        )
    return values


def _one_image(prepared: Any, name: str) -> Tensor:  # noqa: ANN401 - whatever a user returns
    if not isinstance(prepared, Tensor) or not prepared.is_floating_point():
        what = prepared.dtype if isinstance(prepared, Tensor) else type(prepared).__name__
        raise BadConfig(f"gradcam.preprocess: {name} returned {what}, not a tensor of floats")
    tensor = prepared.unsqueeze(0) if prepared.ndim == IMAGE else prepared
    if tensor.ndim != IMAGE + 1 or len(tensor) != 1:
        raise BadConfig(
            f"gradcam.preprocess: {name} returned shape {tuple(prepared.shape)}, not (C, H, W)"
        )
    return tensor.detach()
