"""Trains a small CNN on scikit-learn's handwritten digits (1797 images of 8x8, bundled).

An ordinary PyTorch script, as anyone might have it. It knows nothing of `supervise`: it prints its
progress, saves a checkpoint now and then, and can resume from one.

    python train.py --epochs 60 --out out [--resume out/ckpt-000540.pt]
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

TEST_IMAGES = 360
LOG_EVERY = 15


def main() -> None:
    """Train from the start or from a checkpoint, then write the model and its accuracy."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)

    images, labels, train, test = load_data()
    steps_per_epoch = len(train.split(args.batch_size))
    run = Run(args.lr, total=args.epochs * steps_per_epoch)
    if args.resume:
        run.load(args.resume)

    started, first_step = time.perf_counter(), run.step
    for epoch in range(run.step // steps_per_epoch, args.epochs):
        # The order of an epoch follows from the seed, so a resumed run sees the same batches.
        shuffle = torch.Generator().manual_seed(args.seed + epoch)
        order = train[torch.randperm(len(train), generator=shuffle)]
        for batch in order.split(args.batch_size)[run.step % steps_per_epoch :]:
            loss = run.train_on(images[batch], labels[batch])
            if run.step % LOG_EVERY == 0 or run.step == run.total:
                speed = (run.step - first_step) / (time.perf_counter() - started)
                where = f"step {run.step}/{run.total} epoch {epoch + 1}/{args.epochs}"
                print(f"{where} loss {loss:.4f} {speed:.1f} it/s")
            if run.step % args.checkpoint_every == 0 or run.step == run.total:
                run.save(args.out / f"ckpt-{run.step:06d}.pt")

    accuracy = run.accuracy(images[test], labels[test])
    result = {"accuracy": accuracy, "steps": run.step, "epochs": args.epochs}
    write(args.out / "final.pt", lambda path: torch.save(run.model.state_dict(), path))
    write(args.out / "result.json", lambda path: path.write_text(json.dumps(result) + "\n"))
    print(f"Training finished: test accuracy {accuracy * 100:.1f} %")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--out", type=Path, required=True, help="folder for what it writes")
    parser.add_argument("--resume", type=Path, metavar="CHECKPOINT", help="go on from here")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.003)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoint-every", type=int, default=90, metavar="STEPS")
    return parser.parse_args()


def load_data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, labels, and which of them are for training and for the test: always the same."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    return images, torch.tensor(labels), order[TEST_IMAGES:], order[:TEST_IMAGES]


def convolution(inputs: int, outputs: int) -> nn.Module:
    """Return one 3x3 convolution with what belongs to it."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


class Run:
    """Everything that changes during training, and so belongs in a checkpoint."""

    def __init__(self, lr: float, total: int) -> None:
        self.step = 0
        self.total = total
        self.model = nn.Sequential(
            *(convolution(1, 56), convolution(56, 56), nn.MaxPool2d(2)),
            *(convolution(56, 112), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Dropout(0.3), nn.Linear(112 * 2 * 2, 10)),
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr, weight_decay=0.05)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, total)

    def train_on(self, images: Tensor, labels: Tensor) -> float:
        """Do one step of gradient descent, and return the loss before it."""
        self.model.train()
        self.optimizer.zero_grad()
        loss = functional.cross_entropy(self.model(images), labels)
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.step += 1
        return loss.item()

    @torch.inference_mode()
    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Return the fraction of the images that are recognised."""
        self.model.eval()
        return (self.model(images).argmax(dim=1) == labels).float().mean().item()

    def save(self, path: Path) -> None:
        """Save all that `load` needs."""
        parts = (self.model, self.optimizer, self.scheduler)
        checkpoint = {"step": self.step, "total": self.total, "rng": torch.get_rng_state()}
        checkpoint["state"] = [part.state_dict() for part in parts]
        write(path, lambda temporary: torch.save(checkpoint, temporary))

    def load(self, path: Path) -> None:
        """Restore what `save` saved, or exit with a message."""
        try:
            checkpoint = torch.load(path, weights_only=True)
            self.model.load_state_dict(checkpoint["state"][0])
            self.optimizer.load_state_dict(checkpoint["state"][1])
            self.scheduler.load_state_dict(checkpoint["state"][2])
            torch.set_rng_state(checkpoint["rng"])
            self.step, total = checkpoint["step"], checkpoint["total"]
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, there is no going on
            sys.exit(f"cannot resume from {path}: {type(error).__name__}: {error}")
        if total != self.total:
            sys.exit(f"cannot resume from {path}: its run has {total} steps, this one {self.total}")
        print(f"resumed from {path} at step {self.step}")


def write(path: Path, content: Callable[[Path], object]) -> None:
    """Write under another name first, so that no half-written file bears this one."""
    temporary = path.with_name(path.name + ".tmp")
    content(temporary)
    temporary.replace(path)


if __name__ == "__main__":
    main()
