"""Trains the example's network, and puts photographs beside it. Needs no download.

It learns from scikit-image's `lfw_subset` (100 faces and 100 other crops, of 25x25 pixels), and
from photographs without a face: in each of them, the windows that look most like one are wrong. Of
the photographs that job.yaml looks into, it has seen the coffee and the rocket, but not the
astronaut, the man with the camera and the cat.

    python -m examples.gradcam.prepare
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data
from torch import Tensor
from torch.nn import functional

from examples.gradcam.faces import FaceNet, build

HERE = Path(__file__).parent
PHOTOS = ("astronaut", "camera", "cat", "coffee", "rocket")
SCENES = ("brick", "grass", "gravel", "text", "page", "coins", "moon", "clock", "coffee", "rocket")
SCENES += ("immunohistochemistry", "retina", "hubble_deep_field", "stereo_motorcycle")
SCENE_SIZES = (80, 96, 112, 128, 160, 192)
VIEW = 80
"""Pixels of a scene that are looked at in a step."""
MEAN, STD = 0.45, 0.25
"""Of the brightness, as in job.yaml."""
FACES, TEST = 100, 40
STEPS = 600
LEARNING_RATE = 0.003
CROPS_AT_ONCE, SCENES_AT_ONCE = 16, 4
HARDEST = 8
"""Windows of a scene that are learnt from: those most like a face."""
SCENE_WEIGHT = 3.0
SURE = 0.98
"""What a face should score; never quite 1, so that scores stay comparable between photographs."""


def main() -> None:
    """Train, save the weights, copy the photographs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, help="folder for weights and photographs")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)  # the same weights, however many cores there are

    began = time.perf_counter()
    model, accuracy = train(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    write(args.out / "faces.pt", lambda path: torch.save(model.state_dict(), path))
    seconds = time.perf_counter() - began
    print(f"trained in {seconds:.0f} s: {accuracy:.1%} of {TEST} crops it never saw are right")

    (args.out / "photos").mkdir(exist_ok=True)
    for name in PHOTOS:
        write(args.out / "photos" / f"{name}.png", load_photo(name).save)
    print(f"{len(PHOTOS)} photographs are in {args.out / 'photos'}")


def train(seed: int) -> tuple[FaceNet, float]:
    """Return the trained network, and the share of the test's crops that it gets right."""
    torch.manual_seed(seed)
    crops, is_face = load_crops()
    order = torch.randperm(len(crops))
    learnt, unseen = order[TEST:], order[:TEST]
    faces, others = crops[learnt][is_face[learnt]], crops[learnt][~is_face[learnt]]
    scenes = [load_scene(name, size) for name in SCENES for size in SCENE_SIZES]

    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS)
    for _ in range(STEPS):
        crops_loss = loss_of_crops(model, some(faces), some(others))
        loss = crops_loss + SCENE_WEIGHT * loss_of_scenes(model, scenes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    model.eval()
    with torch.inference_mode():
        found = model.windows(crops[unseen]).amax(dim=1) > 0
    return model, (found == is_face[unseen]).float().mean().item()


def loss_of_crops(model: FaceNet, faces: Tensor, others: Tensor) -> Tensor:
    """Return how wrong the model is about crops, moved and scaled by chance."""
    scores = model.windows(relit(moved(torch.cat([faces, others])))).amax(dim=1)
    wanted = torch.cat([torch.full((len(faces),), SURE), torch.full((len(others),), 1 - SURE)])
    return functional.binary_cross_entropy_with_logits(scores, wanted)


def loss_of_scenes(model: FaceNet, scenes: list[Tensor]) -> Tensor:
    """Return how much the model is taken in by the windows of some scenes that look like a face."""
    views = torch.stack([view(scenes[chance(len(scenes))]) for _ in range(SCENES_AT_ONCE)])
    scores = model.windows(relit(views)).topk(HARDEST, dim=1).values
    return functional.binary_cross_entropy_with_logits(scores, torch.full_like(scores, 1 - SURE))


def some(crops: Tensor) -> Tensor:
    """Return a few of the crops, by chance."""
    return crops[torch.randint(len(crops), (CROPS_AT_ONCE,))]


def view(scene: Tensor) -> Tensor:
    """Return a part of a scene, by chance."""
    top, left = (chance(side - VIEW + 1) for side in scene.shape[1:])
    return scene[:, top : top + VIEW, left : left + VIEW]


def chance(count: int) -> int:
    """Return a number from 0 to count - 1."""
    return int(torch.randint(count, ()))


def moved(crops: Tensor) -> Tensor:
    """Return the crops larger or smaller by a fifth, and up to three pixels aside."""
    count = len(crops)
    move = torch.zeros(count, 2, 3)
    move[:, 0, 0] = move[:, 1, 1] = 0.8 + 0.4 * torch.rand(count)
    move[:, :, 2] = 0.5 * (torch.rand(count, 2) - 0.5)
    grid = functional.affine_grid(move, list(crops.shape), align_corners=False)
    return functional.grid_sample(crops, grid, padding_mode="reflection", align_corners=False)


def relit(pictures: Tensor) -> Tensor:
    """Return the pictures mirrored, brighter or darker, by chance."""
    count = len(pictures)
    mirrored = torch.randint(2, (count, 1, 1, 1)).bool()
    pictures = torch.where(mirrored, pictures.flip(3), pictures)
    contrast, brightness = torch.rand(2, count, 1, 1, 1)
    return pictures * (0.6 + 0.8 * contrast) + 0.5 * (brightness - 0.5)


def load_crops() -> tuple[Tensor, Tensor]:
    """Return the crops of lfw_subset, scaled, (200, 1, 25, 25), and which are faces."""
    crops = torch.from_numpy(data.lfw_subset().astype(np.float32)).unsqueeze(1)
    return (crops - MEAN) / STD, torch.arange(len(crops)) < FACES


def load_scene(name: str, size: int) -> Tensor:
    """Return a photograph, grey and scaled, (1, size, size)."""
    picture = load_photo(name).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    grey = torch.from_numpy(np.asarray(picture, dtype=np.float32)).mean(dim=2) / 255
    return (grey.unsqueeze(0) - MEAN) / STD


def load_photo(name: str) -> Image.Image:
    """Return a photograph that scikit-image brings along; of a stereo pair, the left one."""
    loaded = getattr(data, name)()
    return Image.fromarray(loaded[0] if isinstance(loaded, tuple) else loaded)


def write(path: Path, content: Callable[[Path], object]) -> None:
    """Write under another name first, so that no half-written file bears this one."""
    temporary = path.with_name(f"new-{path.name}")
    content(temporary)
    temporary.replace(path)


if __name__ == "__main__":
    main()
