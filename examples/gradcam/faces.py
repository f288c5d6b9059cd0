"""A small network that tells faces from other things, wherever they are in a picture.

Owns the architecture that prepare.py trains and job.yaml names as `faces:build`. Never holds what
was trained. Invariant: fully convolutional, so it takes pictures of any size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

NEIGHBOURHOOD = 13
"""Pixels across, within which brightness and contrast are evened out."""
MARGIN = 11
"""Pixels put around a picture, so that a face may touch its edge."""


class FaceNet(nn.Module):
    """Looks for a face in every window of 24 pixels, and answers for the best of them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(1, width, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(width, 2 * width, 3), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(2 * width, 4 * width, 4), nn.ReLU(), nn.Dropout(0.3)),
        )
        self.evidence = nn.Conv2d(4 * width, 1, 1)

    def windows(self, grey: Tensor) -> Tensor:
        """Return how much each window of (N, 1, H, W) is a face, (N, windows); 0 is even odds."""
        return self.evidence(self.features(evened(grey))).flatten(1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the scores of `no face` and `face` for (N, 3, H, W), scaled as job.yaml says."""
        grey = pixels.mean(dim=1, keepdim=True)
        framed = functional.pad(grey, (MARGIN,) * 4, mode="replicate")
        best = self.windows(framed).amax(dim=1) / 2
        return torch.stack([-best, best], dim=1)


def evened(grey: Tensor) -> Tensor:
    """Return how much brighter than around it each pixel is, in units of the contrast there."""
    mean, square = (local_mean(values) for values in (grey, grey**2))
    contrast = (square - mean**2).clamp(min=0).sqrt()
    return (grey - mean) / (contrast + 0.1)


def local_mean(values: Tensor) -> Tensor:
    """Return the mean of each pixel's neighbourhood, as far as it lies in the picture."""
    return functional.avg_pool2d(
        values, NEIGHBOURHOOD, stride=1, padding=NEIGHBOURHOOD // 2, count_include_pad=False
    )


def build(width: int = 12) -> FaceNet:
    """Return the network, not trained."""
    return FaceNet(width)
