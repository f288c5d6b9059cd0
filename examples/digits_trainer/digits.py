"""A CNN that learns scikit-learn's handwritten digits (1797 images of 8x8, bundled).

`build` returns the pieces; the built-in trainer does the rest. Run by itself, it trains just so:

    supervise run job.yaml          # survives crashes, hangs, stops and torn checkpoints
    python digits.py                # the same training, unsupervised
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from workers.train import Pieces, run

TEST_IMAGES = 360


class Augmented(Dataset):
    """Images that look a little different each time: shifted by a pixel, and noisy."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        shift = torch.randint(-1, 2, (2,)).tolist()
        image = torch.roll(self.images[index], shift, dims=(1, 2))
        return image + 0.05 * torch.randn_like(image), self.labels[index]


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """What is to become small."""
    images, labels = batch
    return functional.cross_entropy(model(images), labels)


def build(width: int = 48, lr: float = 0.003) -> Pieces:
    """Everything that makes this training: the trainer asks no more."""
    pixels, labels = map(torch.tensor, load_digits(return_X_y=True))
    images = pixels.float().reshape(-1, 1, 8, 8) / 16
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, test = order[TEST_IMAGES:], order[:TEST_IMAGES]
    model = nn.Sequential(
        *(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Dropout(0.3), nn.Linear(2 * width * 4, 10)),
    )

    def accuracy(model: nn.Module) -> dict[str, float]:
        device = next(model.parameters()).device
        right = model(images[test].to(device)).argmax(dim=1).cpu() == labels[test]
        return {"accuracy": right.float().mean().item()}

    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.05)
    data = Augmented(images[train], labels[train])
    return Pieces(model, loss, optimizer, data, batch_size=32, evaluate=accuracy)


if __name__ == "__main__":
    plan = {"epochs": 30, "save": {"best": "accuracy"}, "loader": {"workers": 2}, "clip": 1.0}
    outcome = run(build, out="out-alone", schedule={"kind": "cosine", "warmup": 45}, **plan)
    sys.exit(outcome.exit_code)
