from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from workers.gradcam.colormaps import colormap
from workers.gradcam.errors import BadConfig, BadImage
from workers.gradcam.image import read_image
from workers.gradcam.names import output_stem
from workers.gradcam.overlay import Look, write_overlay, write_raw
from workers.gradcam.preprocess import preprocess_of
from workers.gradcam.settings import COLORMAPS

RED, BLUE = (255, 0, 0), (0, 0, 255)


def two_halves(left: tuple[int, ...] = RED, right: tuple[int, ...] = BLUE) -> Image.Image:
    """A picture 4 wide and 2 high: the left half of one colour, the right half of another."""
    picture = Image.new("RGB", (4, 2), right)
    picture.paste(left, (0, 0, 2, 2))
    return picture


def saved(path: Path, picture: Image.Image, **how: Any) -> str:
    """Write a picture and return its path."""
    picture.save(path, **how)
    return str(path)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
def test_colours_come_out_whatever_the_mode(mode: str, tmp_path: Path) -> None:
    """Colour, transparency, palette and print colours are all read as RGB."""
    suffix = "tif" if mode == "CMYK" else "png"
    found = read_image(saved(tmp_path / f"a.{suffix}", two_halves().convert(mode)))
    assert (found.mode, found.size) == ("RGB", (4, 2))
    assert [found.getpixel((0, 0)), found.getpixel((3, 1))] == [RED, BLUE]


def test_a_palette_with_transparency(tmp_path: Path) -> None:
    """Transparent colours of a palette are read without a warning, and keep their colour."""
    picture = two_halves().convert("P")
    first = picture.getpixel((0, 0))
    path = saved(tmp_path / "a.png", picture, transparency=bytes([0] * first + [128]))
    assert read_image(path).getpixel((0, 0)) == RED


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 65535], [32768, 257]], dtype=np.uint16), [[0, 255], [128, 1]]),
        (np.array([[0, 65535], [32768, 90000]], dtype=np.int32), [[0, 255], [128, 255]]),
        (np.array([[0.0, 1.0], [0.5, np.nan]], dtype=np.float32), [[0, 255], [128, 0]]),
        (np.array([[-10.0, 30.0], [10.0, 10.0]], dtype=np.float32), [[0, 255], [128, 128]]),
        (np.zeros((2, 2), dtype=np.float32), [[0, 0], [0, 0]]),
    ],
    ids=["16 bits", "32 bits", "0 to 1", "any floats", "black"],
)
def test_grey_of_more_than_8_bits(values: np.ndarray, expected: list, tmp_path: Path) -> None:
    """All of the range is used: 16 bits are not cut off at 255, floats are stretched."""
    found = read_image(saved(tmp_path / "a.tif", Image.fromarray(values)))
    assert np.asarray(found)[:, :, 1].tolist() == expected


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    """The orientation that a camera wrote down is obeyed: 6 is a quarter turn clockwise."""
    exif = Image.Exif()
    exif[0x0112] = 6
    found = read_image(saved(tmp_path / "a.png", two_halves(), exif=exif))
    assert found.size == (2, 4)
    assert [found.getpixel((0, 0)), found.getpixel((0, 3))] == [RED, BLUE]


def cut_off(content: bytes) -> bytes:
    """The first half."""
    return content[: len(content) // 2]


def damaged(content: bytes) -> bytes:
    """Zeros in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes(40) + content[middle + 40 :]


def not_an_image(_: bytes) -> bytes:
    """Text."""
    return b"This is no picture.\n"


def empty(_: bytes) -> bytes:
    """Nothing."""
    return b""


@pytest.mark.parametrize("suffix", ["png", "tiff", "gif", "bmp", "webp"])
@pytest.mark.parametrize("harm", [cut_off, not_an_image, empty])
def test_a_file_that_is_no_picture(
    harm: Callable[[bytes], bytes], suffix: str, tmp_path: Path
) -> None:
    """Truncated files, text and nothing at all are told, each by the file's name."""
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    path = Path(saved(tmp_path / f"bad.{suffix}", Image.fromarray(noise)))
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(BadImage, match=rf"bad\.{suffix}: (is not an image|cut off or damaged)"):
        read_image(str(path))


@pytest.mark.parametrize("harm", [cut_off, damaged])
def test_a_damaged_png_is_told(harm: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """What Pillow raises for a broken PNG is a SyntaxError or an OSError; here it is a BadImage."""
    noise = np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)
    path = Path(saved(tmp_path / "bad.png", Image.fromarray(noise)))
    path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(BadImage, match=r"bad\.png: cut off or damaged"):
        read_image(str(path))


def test_a_picture_beyond_all_size_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that would unpack to more than Pillow allows is an error of that image."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)
    with pytest.raises(BadImage, match=r"a\.png: cut off or damaged"):
        read_image(saved(tmp_path / "a.png", two_halves()))


def test_a_file_that_is_not_there() -> None:
    """A missing file is what the system says it is."""
    with pytest.raises(FileNotFoundError, match=r"absent\.png"):
        read_image("absent.png")


def test_preprocessing_is_its_formula() -> None:
    """Each number is (value / 255 - mean) / std, in the order colours, rows, columns."""
    picture = two_halves((51, 102, 204), (0, 255, 0))
    prepare = preprocess_of({"size": [2, 4], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.25, 1]})
    left = [(51 / 255 - 0.1) / 0.5, (102 / 255 - 0.2) / 0.25, 204 / 255 - 0.3]
    right = [(0 - 0.1) / 0.5, (1 - 0.2) / 0.25, -0.3]
    found = prepare(picture)
    assert (found.shape, found.dtype) == ((1, 3, 2, 4), torch.float32)
    assert found[0, :, 0, 0].tolist() == pytest.approx(left, abs=1e-6)
    assert found[0, :, 1, 3].tolist() == pytest.approx(right, abs=1e-6)


def test_preprocessing_is_imagenets_by_default() -> None:
    """Without settings it is 224x224 with the mean and deviation of ImageNet; a size changes it."""
    found = preprocess_of(None)(two_halves())
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225]
    assert found.shape == (1, 3, 224, 224)
    assert found[0, :, 0, 0].tolist() == pytest.approx(expected, abs=1e-5)
    assert preprocess_of({"size": 32})(two_halves()).shape == (1, 3, 32, 32)


def prepare_two_channels(picture: Image.Image) -> torch.Tensor:
    """A user's own, for a model of two channels."""
    return torch.zeros(2, picture.height, picture.width, requires_grad=True)


def prepare_bytes(picture: Image.Image) -> torch.Tensor:
    """A mistake: whole numbers."""
    return torch.zeros(3, picture.height, picture.width, dtype=torch.uint8)


def prepare_batch(picture: Image.Image) -> torch.Tensor:
    """A mistake: two images."""
    return torch.zeros(2, 3, picture.height, picture.width)


def prepare_array(picture: Image.Image) -> np.ndarray:
    """A mistake: no tensor."""
    return np.asarray(picture)


def test_preprocessing_by_a_function() -> None:
    """The function gets the picture; what it returns becomes one image, without its graph."""
    found = preprocess_of(f"{__name__}:prepare_two_channels")(two_halves())
    assert (found.shape, found.requires_grad) == ((1, 2, 2, 4), False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("prepare_bytes", "returned torch.uint8, not a tensor of floats"),
        ("prepare_array", "returned ndarray, not a tensor of floats"),
        ("prepare_batch", r"returned shape \(2, 3, 2, 4\), not \(C, H, W\)"),
    ],
)
def test_a_function_that_returns_something_else(name: str, message: str) -> None:
    """The message names the function and what it returned."""
    with pytest.raises(BadConfig, match=message):
        preprocess_of(f"{__name__}:{name}")(two_halves())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("prepare", "'prepare' is not pkg:prepare"),
        ({"sise": 3}, r"preprocess\.sise: no such field; did you mean size\?"),
        ({"size": [2, 3, 4]}, r"size: \[2, 3, 4\] is not pixels"),
        ({"size": 0}, "size: 0 is not pixels"),
        ({"mean": [0.5]}, r"mean: three numbers are wanted"),
        ({"std": [1, 0, 1]}, "std: is 0 for a colour"),
    ],
)
def test_settings_of_preprocessing_that_cannot_work(setting: Any, message: str) -> None:
    """Each mistake is told with its field before any image is read."""
    with pytest.raises(BadConfig, match=message):
        preprocess_of(setting)


@pytest.mark.parametrize("name", COLORMAPS)
def test_colours_are_matplotlibs(name: str) -> None:
    """No value differs by more than 2 of 255 from matplotlib's map of the same name."""
    expected = mpl.colormaps[name](np.arange(256))[:, :3] * 255
    found = colormap(name)
    assert (found.shape, found.dtype) == ((256, 3), np.dtype("uint8"))
    assert np.abs(found - expected).max() <= 2


def test_an_overlay_has_the_pictures_size_and_the_maps_colours(tmp_path: Path) -> None:
    """Where the map is 0 lies the first colour, at its hottest the last, at half strength each."""
    heat = np.zeros((8, 8), dtype=np.float32)
    heat[:, 4:] = 0.125
    write_overlay(tmp_path / "a.png", Image.new("RGB", (64, 32)), heat, Look("viridis", 0.5))
    with Image.open(tmp_path / "a.png") as found:
        assert (found.size, found.mode) == ((64, 32), "RGB")
        corners = [found.getpixel((0, 0)), found.getpixel((63, 31))]
    colours = colormap("viridis")[[0, 255]] / 2
    assert np.abs(np.array(corners) - colours).max() <= 1


@pytest.mark.parametrize("value", [0.0, 3.5])
def test_a_constant_map_is_one_colour(value: float) -> None:
    """A map of zeros is cold all over, another constant one hot all over."""
    heat = np.full((4, 4), value, dtype=np.float32)
    found = np.asarray(Look("inferno", 1.0).over(two_halves(), heat))
    expected = colormap("inferno")[255 if value else 0]
    assert found.reshape(-1, 3).tolist() == [expected.tolist()] * 8


def test_the_strength_of_an_overlay() -> None:
    """At 0 the picture is untouched, at 1 it is gone."""
    heat = np.ones((2, 4), dtype=np.float32)
    assert Look("jet", 0.0).over(two_halves(), heat).tobytes() == two_halves().tobytes()
    hot = Look("jet", 1.0).over(two_halves(), heat)
    assert hot.getcolors() == [(8, tuple(colormap("jet")[255].tolist()))]


def test_the_raw_map_is_as_computed(tmp_path: Path) -> None:
    """The file holds the very floats, and needs no pickle to be read."""
    heat = np.random.default_rng(0).random((3, 5), dtype=np.float32)
    write_raw(tmp_path / "a.npy", heat)
    found = np.load(tmp_path / "a.npy", allow_pickle=False)
    assert (found.dtype, found.tobytes()) == (np.dtype("float32"), heat.tobytes())


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("photos/cat.jpg", "photos/cat.jpg"),
        ("./photos/../photos/cat.jpg", "photos/cat.jpg"),
        ("/jobs/cam/photos/cat.jpg", "photos/cat.jpg"),
        ("/data/cat.jpg", "_/data/cat.jpg"),
        ("../cat.jpg", "_/jobs/cat.jpg"),
        ("_/data/cat.jpg", "__/data/cat.jpg"),
        ("__/data/cat.jpg", "___/data/cat.jpg"),
        ("_x/cat.jpg", "_x/cat.jpg"),
        ("_", "_"),
    ],
)
def test_names_follow_the_folder_of_the_image(image: str, expected: str) -> None:
    """The folder is kept as seen from the job's; what lies outside of it has a place of its own."""
    assert output_stem(image, Path("/jobs/cam")) == expected


paths = st.lists(st.sampled_from(["_", "__", "a", "jobs", "cam", "a.jpg", "a.png"]), min_size=1)


@given(one=paths, other=paths, absolute=st.tuples(st.booleans(), st.booleans()))
def test_two_images_never_share_a_name(
    one: list[str], other: list[str], absolute: tuple[bool, bool]
) -> None:
    """Different files have different names below out, inside the job's folder and outside."""
    folder = Path("/jobs/cam")
    images = [
        "/" * is_absolute + "/".join(parts)
        for parts, is_absolute in zip((one, other), absolute, strict=True)
    ]
    files = [folder / image for image in images]
    stems = [output_stem(image, folder) for image in images]
    assert (files[0] == files[1]) == (stems[0] == stems[1])
    assert not any(stem.startswith("/") or ".." in stem for stem in stems)


def test_of_an_animation_the_first_picture_counts(tmp_path: Path) -> None:
    """The frames behind it are left alone."""
    path = tmp_path / "a.gif"
    two_halves().save(path, save_all=True, append_images=[two_halves(BLUE, RED)])
    assert read_image(str(path)).getpixel((0, 0)) == RED
