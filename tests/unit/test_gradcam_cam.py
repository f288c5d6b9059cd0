import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.gradcam_nets import Small
from workers.gradcam import GradCam, cam
from workers.gradcam.errors import BadConfig, BadImage
from workers.gradcam.settings import METHODS, Settings
from workers.gradcam.target import Target

ROOT = Path(__file__).parents[2]
MODEL = "tests.unit.gradcam_nets:build"
SIDE = 24


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with two photographs and labels; outside of a job, outputs go to ./out."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cam, "_built", {})
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save("photos/cat.jpg")
    Image.fromarray(noise[::-1]).save("photos/cat.png")
    (tmp_path / "labels.txt").write_text("ant\nbee\ncat\ndog\n")


def grad_cam(**fields: Any) -> GradCam:
    """Give one for the small network."""
    return GradCam(**{"model": MODEL, "preprocess": {"size": SIDE}, "device": "cpu", **fields})


def test_an_image_becomes_two_files_and_a_line() -> None:
    """The line is JSON, names what was written, and all of it fits together."""
    found = grad_cam(labels="labels.txt", target="cat")("photos/cat.jpg")
    took, score = found.pop("ms"), found.pop("score")
    assert json.loads(json.dumps(found)) == {
        "image": "photos/cat.jpg",
        "overlay": "photos/cat.jpg.png",
        "raw": "photos/cat.jpg.npy",
        "class": 2,
        "label": "cat",
        "peak_bytes": None,
        "layer": "features.3",
    }
    assert took > 0
    assert 0 < score < 1
    with Image.open("out/photos/cat.jpg.png") as overlay:
        assert (overlay.format, overlay.size) == ("PNG", (40, 30))
    assert np.load("out/photos/cat.jpg.npy").shape == (SIDE, SIDE)


def test_images_that_differ_by_their_suffix_do_not_collide() -> None:
    """Photographs cat.jpg and cat.png have files of their own."""
    one = grad_cam()
    found = [one(f"photos/cat.{suffix}") for suffix in ("jpg", "png")]
    assert len({name for line in found for name in (line["overlay"], line["raw"])}) == 4
    files = sorted(path.name for path in Path("out/photos").iterdir())
    assert files == ["cat.jpg.npy", "cat.jpg.png", "cat.png.npy", "cat.png.png"]


@pytest.mark.parametrize("method", METHODS)
def test_the_same_image_gives_the_same_bytes(method: str) -> None:
    """A second worker writes the same files, byte by byte, and the same numbers but the time."""
    seen = []
    for _ in range(2):
        line = grad_cam(method=method)("photos/cat.jpg")
        line.pop("ms")
        files = [Path("out", line[name]).read_bytes() for name in ("overlay", "raw")]
        seen.append((line, files))
    assert seen[0] == seen[1]


def test_the_layer_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    """The worker's log says which layer was chosen, at the first image only."""
    one = grad_cam()
    one("photos/cat.jpg")
    one("photos/cat.png")
    assert capsys.readouterr().out == "gradcam: target layer features.3, on cpu\n"


def test_the_score_is_the_probability_of_the_class() -> None:
    """It is the softmax of the class; the scores of all classes sum to 1."""
    scores = [grad_cam(target=index)("photos/cat.jpg")["score"] for index in range(4)]
    assert sum(scores) == pytest.approx(1, abs=1e-5)
    assert grad_cam()("photos/cat.jpg")["score"] == max(scores)


def test_the_score_of_a_single_class_is_its_sigmoid() -> None:
    """A model of one output says yes or no: softmax would always be 1."""
    found = grad_cam(args={"classes": 1})("photos/cat.jpg")
    assert found["class"] == 0
    assert 0.1 < found["score"] < 0.9


def least(logits: torch.Tensor, path: str) -> int:
    """Choose the class with the lowest score, of photographs alone."""
    assert path.startswith("photos/")
    assert logits.shape == (4,)
    return int(logits.argmin())


def test_a_function_chooses_the_class() -> None:
    """The function gets the scores of the classes and the path, and its answer is the class."""
    scores = {index: grad_cam(target=index)("photos/cat.jpg")["score"] for index in range(4)}
    found = grad_cam(target=f"{__name__}:least")("photos/cat.jpg")
    assert found["class"] == min(scores, key=scores.__getitem__)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"target": "cat"}, "'cat' is a label: give the file"),
        ({"target": "cow", "labels": "labels.txt"}, r"no label 'cow'; there are: ant, bee, cat"),
        ({"target": "catt", "labels": "labels.txt"}, r"did you mean cat\?"),
        ({"labels": "absent.txt"}, r"gradcam\.labels: cannot read absent\.txt"),
        ({"method": "gradcams"}, r"gradcam\.method: 'gradcams' is unknown; did you mean gradcam"),
        ({"colormap": "grey"}, r"gradcam\.colormap: 'grey' is unknown; there are: turbo"),
        ({"alpha": 2}, r"gradcam\.alpha: 2 is not between 0 and 1"),
        ({"device": "tpu"}, r"gradcam\.device: 'tpu' is none of auto, cpu, cuda"),
        ({"wieghts": "a.pt"}, r"gradcam\.wieghts: no such field; did you mean weights\?"),
        ({"model": ""}, r"gradcam\.model: missing"),
        ({"reshape": "vits"}, r"gradcam\.reshape: 'vits' is neither vit nor pkg:reshape"),
        ({"layer": "features.4x"}, r"gradcam\.layer: no layer 'features.4x'; did you mean"),
    ],
)
def test_settings_that_cannot_work(fields: dict[str, Any], message: str) -> None:
    """Each is refused before the first image, with its field and what to do."""
    with pytest.raises(BadConfig, match=message) as raised:
        grad_cam(**fields)
    assert raised.value.kind == "bad_config"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a host without a GPU")
def test_a_gpu_that_is_not_there() -> None:
    """Asking for CUDA where there is none is told; `auto` takes the CPU."""
    with pytest.raises(BadConfig, match="cuda is not available here"):
        grad_cam(device="cuda")
    assert grad_cam(device="auto").device == torch.device("cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_map_and_says_how_much_it_took() -> None:
    """The map on a GPU is that of the CPU but for rounding, and the peak is a number of bytes."""
    found = grad_cam(device="cuda")("photos/cat.jpg")
    heat = np.load(Path("out", found["raw"]))
    grad_cam()("photos/cat.jpg")
    assert heat == pytest.approx(np.load(Path("out", found["raw"])), rel=1e-2, abs=1e-5)
    assert found["peak_bytes"] > 0


@pytest.mark.parametrize("index", [-1, 4])
def test_a_class_that_the_model_has_not(index: int) -> None:
    """The message says which classes there are."""
    with pytest.raises(BadConfig, match=rf"there is no class {index}, the model has 0 to 3"):
        grad_cam(target=index)("photos/cat.jpg")


def test_a_label_that_looks_like_a_function() -> None:
    """What stands in the file of labels is a label, whatever its letters."""
    Path("labels.txt").write_text("json:loads\n")
    assert Target("json:loads", "labels.txt").index == 0


def test_a_bad_image_leaves_the_next_one_alone() -> None:
    """After a file that is no image, the worker goes on, and the file wrote nothing."""
    Path("photos/bad.jpg").write_text("no picture")
    one = grad_cam()
    expected = grad_cam()("photos/cat.jpg")
    with pytest.raises(BadImage, match=r"photos/bad\.jpg: is not an image"):
        one("photos/bad.jpg")
    found = one("photos/cat.jpg")
    assert {**found, "ms": 0} == {**expected, "ms": 0}
    assert not Path("out/photos/bad.jpg.png").exists()


def test_a_preloaded_model_is_taken_and_not_built_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of the same settings is built once, before; another one's is not taken for it."""
    built: list[str] = []
    load = cam.load_network

    def counted(settings: Settings) -> Any:
        built.append(settings.model_key)
        return load(settings)

    monkeypatch.setattr(cam, "load_network", counted)
    GradCam.preload(model=MODEL, args={"classes": 3}, target=1)
    taken = grad_cam(args={"classes": 3}, target=2)
    assert len(built) == 1
    assert taken("photos/cat.jpg")["class"] == 2
    grad_cam(args={"classes": 4})
    assert len(built) == 2


@pytest.mark.parametrize("package", ["torch", "numpy", "PIL"])
def test_a_package_that_is_missing(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the job runs without what this needs, the message says how to get it."""
    for name in [name for name in sys.modules if name.startswith("workers.gradcam")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf"{package} is missing: .* pip install torch"):
        importlib.import_module("workers.gradcam")


PRELOADED = f"""
import os, sys, threading
from workers.gradcam import GradCam
threads = len(os.listdir("/proc/self/task"))
fields = {{"model": "{MODEL}", "preprocess": {{"size": {SIDE}}}, "device": "cpu"}}
GradCam.preload(**fields)
import torch
assert not torch.cuda.is_initialized()
assert len(os.listdir("/proc/self/task")) == threads == 1
child = os.fork()
if child == 0:
    GradCam(**fields)("photos/cat.jpg")
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_preloading_leaves_a_process_that_may_fork() -> None:
    """It starts no thread and touches no GPU; a child forked after it explains an image."""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", PRELOADED],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert Path("out/photos/cat.jpg.png").exists()


class Failing(Small):
    """A network that fails behind its target layer."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Run the layers, then raise."""
        self.features(pixels)
        raise RuntimeError("the model's own mistake")


@pytest.mark.parametrize("name", ["Small", "Failing"])
def test_hooks_are_removed_whatever_happens(name: str) -> None:
    """After an image, and after a model that raised, no layer has a hook."""
    one = grad_cam(model=f"{__name__}:{name}")
    if name == "Failing":
        with pytest.raises(RuntimeError, match="the model's own mistake"):
            one("photos/cat.jpg")
    else:
        one("photos/cat.jpg")
    modules = one.explainer.network.module.modules()
    assert [module for module in modules if module._forward_hooks] == []
