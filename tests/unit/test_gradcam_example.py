import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from examples.gradcam import resnet
from workers.gradcam import GradCam

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "gradcam"
FACE = (slice(50, 190), slice(170, 280))
"""Rows and columns of the astronaut's face, of 512."""
SIDE = 512


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run what the README says first, into a folder of the test's own."""
    folder = tmp_path_factory.mktemp("faces")
    command = [sys.executable, "-m", "examples.gradcam.prepare", "--out", str(folder)]
    # Traced line by line, the training would take minutes.
    environment = {name: value for name, value in os.environ.items() if "COV" not in name}
    said = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True, timeout=100
    )
    assert "5 photographs are in" in said.stdout
    return folder


@pytest.fixture
def fields(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Give the settings of the example's job, as its worker gets them."""
    monkeypatch.chdir(prepared)
    monkeypatch.syspath_prepend(EXAMPLE)
    section = dict(YAML(typ="safe").load(EXAMPLE / "job.yaml")["gradcam"])
    assert sorted(Path().glob(section.pop("images"))) == sorted(Path().glob("photos/*.png"))
    section.pop("out")
    return section | {"labels": str(EXAMPLE / section["labels"]), "device": "cpu"}


def share_on_the_face(heat: np.ndarray) -> float:
    """How much of the heat of the hottest twentieth of the picture lies on the astronaut's face."""
    rows = (np.arange(SIDE) * heat.shape[0]) // SIDE
    drawn = heat[rows][:, rows]
    hottest = np.where(drawn >= np.quantile(drawn, 0.95), drawn, 0)
    return float(hottest[FACE].sum() / hottest.sum())


@pytest.mark.parametrize("method", ["gradcam", "layercam", "scorecam"])
def test_the_heat_is_on_the_astronauts_face(method: str, fields: dict[str, Any]) -> None:
    """Of the hottest twentieth of the map, nearly all heat lies on the face, which is its peak."""
    found = GradCam(**fields | {"method": method})("photos/astronaut.png")
    heat = np.load(Path("out", found["raw"]))
    row, column = np.array(np.unravel_index(heat.argmax(), heat.shape)) * SIDE / heat.shape[0]
    assert found["label"] == "face"
    assert found["score"] > 0.9
    assert FACE[0].start < row < FACE[0].stop
    assert FACE[1].start < column < FACE[1].stop
    assert share_on_the_face(heat) > 0.75


def test_photographs_without_a_face_score_lower(fields: dict[str, Any]) -> None:
    """People score above even odds, coffee and rocket below."""
    explain = GradCam(**fields)
    scores = {path.stem: explain(str(path))["score"] for path in sorted(Path().glob("photos/*"))}
    assert min(scores["astronaut"], scores["camera"]) > 0.5
    assert max(scores["coffee"], scores["rocket"]) < 0.5


def test_the_resnet_is_the_papers() -> None:
    """It has as many weights as published, and is the same at each build."""
    network = resnet.build()
    assert sum(one.numel() for one in network.parameters()) == 11_689_512

    def digest() -> str:
        state = resnet.build(num_classes=10).state_dict()
        return hashlib.sha256(b"".join(one.numpy().tobytes() for one in state.values())).hexdigest()

    assert digest() == digest()
