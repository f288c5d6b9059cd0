"""Small networks for the tests of workers/gradcam, and where their files go.

Owns models that a person can compute by hand. Never trained. Invariant: built twice, they have the
same weights.
"""

import torch
from torch import Tensor, nn


class Small(nn.Module):
    """Two convolutions, an operation in place behind the second, dropout and a linear layer."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 5, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(5, 6, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(6, classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the scores of the classes."""
        return self.head(self.dropout(self.features(pixels).mean(dim=(2, 3))))


class Transformer(nn.Module):
    """A vision transformer of one block over 4x4 patches, with one class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the scores of the classes."""
        tokens = self.patches(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(tokens), -1, -1), tokens], dim=1)
        return self.head(self.block(tokens)[:, 0])


def build(classes: int = 4) -> Small:
    """Return a small network, always the same one, in training mode as anyone's would be."""
    torch.manual_seed(0)
    return Small(classes)


def build_transformer() -> Transformer:
    """Return a transformer, always the same one."""
    torch.manual_seed(0)
    network = Transformer()
    network.head.weight.data *= 50  # so that no two masked images score alike
    return network


def pixels(side: int = 12, seed: int = 1) -> Tensor:
    """Return one image of noise, (1, 3, side, side)."""
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(seed))
