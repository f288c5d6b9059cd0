"""Reads photographs as people see them: upright, in 8-bit RGB.

Owns the decoding. Never resizes. Invariant: whatever the file holds, the answer is an RGB picture
or a BadImage that names the file.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from workers.gradcam.errors import BadImage

BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow raises for files that are cut off or damaged, by format."""
FULL_16_BIT, FULL_8_BIT = 65535, 255


def read_image(path: str) -> Image.Image:
    """Return the (first) picture of a file. Raises BadImage, and OSError when there is no file."""
    with Path(path).open("rb") as file:
        try:
            with Image.open(file) as image:
                image.load()
                return to_rgb(ImageOps.exif_transpose(image))
        except UnidentifiedImageError as error:
            raise BadImage(f"{path}: is not an image, or of a format Pillow cannot read") from error
        except BROKEN as error:
            raise BadImage(f"{path}: cut off or damaged: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Return it as RGB. Transparency is dropped, as loaders of data sets do."""
    if image.mode.startswith("I") or image.mode == "F":
        return _from_numbers(np.asarray(image)).convert("RGB")
    if image.mode in {"P", "PA", "LA", "La", "RGBa"}:
        image = image.convert("RGBA")  # a palette may have transparent colours
    return image.convert("RGB")


def _from_numbers(values: np.ndarray) -> Image.Image:
    """Return grey from whole numbers of 16 bits, or from floats, of which the range is unknown."""
    numbers = np.nan_to_num(values.astype(np.float64))
    if values.dtype.kind == "f":
        low, high = float(numbers.min()), float(numbers.max())
        low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
    else:
        low, high = 0.0, float(FULL_16_BIT)
    scaled = (numbers - low) * (FULL_8_BIT / (high - low or 1))
    return Image.fromarray(np.clip(scaled + 0.5, 0, FULL_8_BIT).astype(np.uint8))
