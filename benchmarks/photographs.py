"""Real photographs for the batch benchmarks: parts of those that scikit-image brings along.

Owns nothing but the writing. Invariant: the same number gives the same files.
"""

import random
from pathlib import Path

import skimage.data
from PIL import Image

FOLDER = Path(skimage.data.__file__).parent
SOURCES = (
    *("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "retina.jpg", "ihc.png"),
    *("hubble_deep_field.jpg", "motorcycle_left.png"),
)
SIDE = 224
QUALITY = 90


def write_photographs(folder: Path, count: int) -> None:
    """Write so many different JPEG files of 224 x 224 pixels."""
    folder.mkdir()
    chance = random.Random(0)  # noqa: S311 - to be the same every time
    pictures = [Image.open(FOLDER / name).convert("RGB") for name in SOURCES]
    for number in range(count):
        picture = pictures[number % len(pictures)]
        side = round(min(picture.size) * chance.uniform(0.4, 1.0))
        left, top = (chance.randrange(room - side + 1) for room in picture.size)
        part = picture.resize((SIDE, SIDE), box=(left, top, left + side, top + side))
        part.save(folder / f"{number:04d}.jpg", quality=QUALITY)
