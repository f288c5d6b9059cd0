"""Class activation maps of images: what a `gradcam` job runs.

Owns nothing but the name `GradCam`; each concern is a module beside this one. Needs torch, numpy
and Pillow, nothing else. Invariant: no module of this package touches a GPU when it is imported.
"""

import sys

NEEDED = {"torch", "numpy", "PIL"}

try:
    from workers.gradcam.cam import GradCam
except ModuleNotFoundError as missing:
    if missing.name not in NEEDED:
        raise
    raise ModuleNotFoundError(
        f"gradcam needs torch, numpy and Pillow where the job runs, and {missing.name} is missing: "
        f"{sys.executable} -m pip install torch numpy pillow",
        name=missing.name,
    ) from None

__all__ = ["GradCam"]
