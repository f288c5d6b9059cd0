"""The settings of a `gradcam` job, as the worker gets them.

Owns names, defaults and choices. Never loads a file and never imports torch, so a wrong name is
told before the model is built. Invariant: equal settings have the same `model_key`.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workers.gradcam.errors import BadConfig, suggestion

if TYPE_CHECKING:
    from collections.abc import Mapping

METHODS = ("gradcam", "gradcam++", "eigencam", "layercam", "scorecam")
COLORMAPS = ("turbo", "viridis", "inferno", "jet")
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Settings:
    """The fields of the section `gradcam`, without images and out."""

    model: str
    """`pkg:build`, a TorchScript file, or a .pt2 file of torch.export."""
    args: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of `pkg:build`."""
    weights: str | None = None
    layer: str | None = None
    target: int | str | None = None
    labels: str | None = None
    preprocess: str | Mapping[str, Any] | None = None
    method: str = "gradcam"
    reshape: str | None = None
    colormap: str = "turbo"
    alpha: float = 0.5
    device: str = "auto"

    def __post_init__(self) -> None:
        """Raise BadConfig for a value that is none of the choices."""
        self._choice("method", METHODS)
        self._choice("colormap", COLORMAPS)
        if self.device.partition(":")[0] not in DEVICES:
            raise BadConfig(f"gradcam.device: {self.device!r} is none of {', '.join(DEVICES)}")
        if not 0 <= self.alpha <= 1:
            raise BadConfig(f"gradcam.alpha: {self.alpha} is not between 0 and 1")

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Settings:
        """Return them from a plain mapping. Raises BadConfig for a field that there is not."""
        known = [one.name for one in dataclasses.fields(cls)]
        for name in fields:
            if name not in known:
                raise BadConfig(f"gradcam.{name}: no such field; {suggestion(name, known)}")
        if not fields.get("model"):
            raise BadConfig("gradcam.model: missing; give pkg:build, a TorchScript or a .pt2 file")
        given = {name: value for name, value in fields.items() if value is not None}
        return cls(**given)

    @property
    def model_key(self) -> str:
        """What decides which network is built, as text."""
        return json.dumps([self.model, self.args, self.weights], sort_keys=True, default=str)

    def _choice(self, name: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in choices:
            raise BadConfig(f"gradcam.{name}: {value!r} is unknown; {suggestion(value, choices)}")
