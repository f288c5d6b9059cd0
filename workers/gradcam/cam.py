"""The entry of a `gradcam` job: an image in, two files and a line out.

Owns the order of the work, and the model that a process built before it forked. Never writes but
through `workers.outputs`, which publishes when the item is done. Invariant: `preload` runs no pass
of the model, starts no thread and touches no GPU.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from workers.gradcam.errors import BadConfig
from workers.gradcam.explain import Explainer
from workers.gradcam.image import read_image
from workers.gradcam.load import load_network
from workers.gradcam.names import output_stem
from workers.gradcam.network import Network
from workers.gradcam.overlay import Look, write_overlay, write_raw
from workers.gradcam.preprocess import preprocess_of
from workers.gradcam.settings import Settings
from workers.gradcam.target import Target
from workers.outputs import output

_built: dict[str, Network] = {}
"""Networks that no GradCam has taken yet, by the settings they were built from."""


class GradCam:
    """Called with the path of an image, draws where the model saw its class.

    The keyword arguments are the fields of `gradcam` in job.yaml, without images and out. Raises
    BadConfig for settings that cannot work.
    """

    @staticmethod
    def preload(**fields: Any) -> None:  # noqa: ANN401 - as they stand in job.yaml
        """Build the model on the CPU and import all that is named, for the processes to come."""
        settings = Settings.of(fields)
        preprocess_of(settings.preprocess)
        Target(settings.target, settings.labels)
        _built[settings.model_key] = load_network(settings)

    def __init__(self, **fields: Any) -> None:  # noqa: ANN401 - as they stand in job.yaml
        settings = Settings.of(fields)
        self.device = _device(settings.device)
        self.preprocess = preprocess_of(settings.preprocess)
        self.target = Target(settings.target, settings.labels)
        self.look = Look(settings.colormap, settings.alpha)
        self.folder = Path.cwd()
        # Taken out: of two that shared a network, the hooks of one would be in the other's way.
        network = _built.pop(settings.model_key, None) or load_network(settings)
        network.to(self.device)
        self.explainer = Explainer(network, settings)
        self.told = False

    def __call__(self, image: str) -> dict[str, Any]:
        """Write overlay and raw map of an image, and return what is to be known of it.

        `overlay` and `raw` are names below `out`; `ms` is the time of all of it, in milliseconds;
        `peak_bytes` the most GPU memory that tensors took, null on the CPU. Raises BadImage.
        """
        began = time.perf_counter()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        picture = read_image(image)
        pixels = self.preprocess(picture).to(self.device)
        found = self.explainer.explain(pixels, lambda logits: self.target.choose(logits, image))
        self._tell(found.layer)
        stem = output_stem(image, self.folder)
        overlay, raw = f"{stem}.png", f"{stem}.npy"
        write_overlay(output(overlay), picture, found.heat, self.look)
        write_raw(output(raw), found.heat)
        return {
            "image": image,
            "overlay": overlay,
            "raw": raw,
            "class": found.index,
            "label": self.target.label(found.index),
            "score": round(found.score, 6),
            "ms": round((time.perf_counter() - began) * 1000, 1),
            "peak_bytes": self._peak_bytes(),
            "layer": found.layer,
        }

    def _tell(self, layer: str) -> None:
        if not self.told:
            print(f"gradcam: target layer {layer}, on {self.device}", flush=True)
            self.told = True

    def _peak_bytes(self) -> int | None:
        if self.device.type != "cuda":
            return None
        return int(torch.cuda.max_memory_allocated(self.device))


def _device(name: str) -> torch.device:
    available = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if available else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        if not available:
            raise BadConfig("gradcam.device: cuda is not available here; use auto or cpu")
        # The same image gives the same bytes: no algorithm is chosen by how fast it just was.
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
    return device
