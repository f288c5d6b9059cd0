"""Draws a map over its picture.

Owns colours and files. Never changes the map: the raw one is written as it was computed. Invariant:
the overlay has the size of the picture, whatever the size of the map.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from workers.gradcam.colormaps import COLOURS, colormap

COMPRESSION = 1
"""Of zlib: 6, the default, takes five times longer for a tenth of the bytes."""


def write_overlay(path: Path, picture: Image.Image, heat: np.ndarray, look: Look) -> None:
    """Write the picture with the map blended over it, as PNG."""
    look.over(picture, heat).save(path, format="PNG", compress_level=COMPRESSION)


def write_raw(path: Path, heat: np.ndarray) -> None:
    """Write the map as .npy: float32, rows and columns of the model's input."""
    with path.open("wb") as file:
        np.save(file, heat, allow_pickle=False)


class Look:
    """The colours of an overlay, and how much of the picture they cover."""

    def __init__(self, name: str, alpha: float) -> None:
        self.palette = colormap(name).tobytes()
        self.alpha = alpha

    def over(self, picture: Image.Image, heat: np.ndarray) -> Image.Image:
        """Blend them: the hottest place has the last colour, 0 the first.

        Heat is on a scale of its own in each picture. A map of zeros is the first colour all over.
        """
        hottest = float(heat.max())
        levels = heat * ((COLOURS - 1) / hottest) if hottest > 0 else heat
        drawn = Image.fromarray(levels).resize(picture.size, Image.Resampling.BILINEAR)
        index = Image.fromarray((np.asarray(drawn) + 0.5).astype(np.uint8))
        index.putpalette(self.palette)
        return Image.blend(picture, index.convert("RGB"), self.alpha)
