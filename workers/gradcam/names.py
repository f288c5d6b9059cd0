"""Names of the files that are written for an image.

Owns the way from the image's path to a name below `out`. Never looks at the file system. Invariant:
two images never share a name, so the suffix stays: a.jpg gives a.jpg.png, and a.png a.png.png.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

OUTSIDE = "_"


def output_stem(image: str, folder: Path) -> str:
    """Return the path of an image as seen from `folder`, absolute; images elsewhere go below `_/`.

    A folder that is itself called `_` gives way: its images go below `__/`.
    """
    path = PurePosixPath(os.path.normpath(folder / image))
    if not path.is_relative_to(folder):
        return str(PurePosixPath(OUTSIDE, *path.parts[1:]))
    first, *rest = path.relative_to(folder).parts or (path.name,)
    if rest and not first.strip(OUTSIDE):
        first += OUTSIDE
    return str(PurePosixPath(first, *rest))
