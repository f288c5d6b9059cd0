import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.unit.gradcam_nets import Small, build, build_transformer, pixels
from workers.gradcam.errors import BadConfig
from workers.gradcam.explain import Explainer
from workers.gradcam.load import load_network
from workers.gradcam.methods import METHODS
from workers.gradcam.network import Network, targets
from workers.gradcam.settings import Settings
from workers.gradcam.tap import logits_of

MODEL = "tests.unit.gradcam_nets:build"

# torch.jit says in 2.13 that it is on its way out; what it reads and writes is still in use.
# torch.export warns of a name that it uses itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
]


def scripted(network: nn.Module, path: Path) -> None:
    """Write the network as its source."""
    torch.jit.script(network).save(path)


def traced(network: nn.Module, path: Path) -> None:
    """Write the network as what it did once."""
    torch.jit.trace(network, pixels()).save(path)


def exported(network: nn.Module, path: Path) -> None:
    """Write the network as a program."""
    torch.export.save(torch.export.export(network, (pixels(),)), path)


FORMS = {"scripted.pt": scripted, "traced.pt": traced, "exported.pt2": exported}


def explained(settings: Settings) -> Any:
    """Explain class 1 of the one image."""
    return Explainer(load_network(settings), settings).explain(pixels(), lambda _: 1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", FORMS)
def test_files_give_what_the_module_gives(form: str, method: str, tmp_path: Path) -> None:
    """TorchScript and torch.export files give the map of the Python module, at the same layer."""
    FORMS[form](build().eval(), tmp_path / form)
    expected = explained(Settings(model=MODEL, method=method))
    found = explained(Settings(model=str(tmp_path / form), method=method))
    assert found.layer == "features.3" == expected.layer
    assert found.heat == pytest.approx(expected.heat, rel=1e-5, abs=1e-7)
    assert found.heat.max() > 0


@pytest.mark.parametrize("form", FORMS)
def test_a_layer_of_a_file_by_its_name(form: str, tmp_path: Path) -> None:
    """The first convolution can be named in each kind of file, and a wrong name is suggested."""
    FORMS[form](build().eval(), tmp_path / form)
    expected = explained(Settings(model=MODEL, layer="features.0"))
    found = explained(Settings(model=str(tmp_path / form), layer="features.0"))
    assert found.heat == pytest.approx(expected.heat, rel=1e-5, abs=1e-7)
    with pytest.raises(BadConfig, match=r"no layer 'featurs.3'; did you mean features.3"):
        explained(Settings(model=str(tmp_path / form), layer="featurs.3"))


@pytest.mark.parametrize("form", ["traced.pt", "exported.pt2"])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_files_made_in_training_mode_are_refused(form: str, tmp_path: Path) -> None:
    """Dropout that was written into a file is on for ever; the message says how to make another."""
    FORMS[form](build().train(), tmp_path / form)
    with pytest.raises(BadConfig, match=r"training mode.*model\.eval\(\)"):
        load_network(Settings(model=str(tmp_path / form)))


def test_a_scripted_network_goes_on_without_a_tap(tmp_path: Path) -> None:
    """After it was tapped, the file's network computes what it did before, and can be tapped on."""
    scripted(build().eval(), tmp_path / "net.pt")
    network = load_network(Settings(model=str(tmp_path / "net.pt")))
    explainer = Explainer(network, Settings(model="x"))
    first = explainer.explain(pixels(), lambda _: 1).heat
    assert torch.equal(build().eval()(pixels()), network(pixels()))
    assert explainer.explain(pixels(), lambda _: 1).heat == pytest.approx(first)
    with pytest.raises(RuntimeError, match="load it again"):
        Explainer(network, Settings(model="x", layer="features.0")).explain(pixels(), lambda _: 1)


def test_evaluation_mode_is_forced() -> None:
    """A model built in training mode gives one map each time: dropout off, weights frozen."""
    assert build().training
    first, second = explained(Settings(model=MODEL)), explained(Settings(model=MODEL))
    assert np.array_equal(first.heat, second.heat)
    module = load_network(Settings(model=MODEL)).module
    assert not module.training
    assert not any(weight.requires_grad for weight in module.parameters())


def test_arguments_reach_the_function() -> None:
    """The mapping args is handed over by keyword."""
    network = load_network(Settings(model=MODEL, args={"classes": 7}))
    assert network(pixels()).shape == (1, 7)


def nested(weights: dict[str, Tensor]) -> dict[str, Any]:
    """Put the weights under `model`."""
    return {"epoch": 3, "model": weights}


def under_state_dict(weights: dict[str, Tensor]) -> dict[str, Any]:
    """Put the weights under `state_dict`."""
    return {"state_dict": weights, "step": 5}


def parallel(weights: dict[str, Tensor]) -> dict[str, Any]:
    """Name the weights as DistributedDataParallel does."""
    return {f"module.{name}": tensor for name, tensor in weights.items()}


def compiled_parallel(weights: dict[str, Tensor]) -> dict[str, Any]:
    """Name the weights as a compiled model in DistributedDataParallel does."""
    return {f"module._orig_mod.{name}": tensor for name, tensor in weights.items()}


@pytest.mark.parametrize("shape", [dict, nested, under_state_dict, parallel, compiled_parallel])
def test_weights_are_found_where_scripts_put_them(
    shape: Callable[[dict[str, Tensor]], Any], tmp_path: Path
) -> None:
    """A state_dict is understood bare, under its usual keys, and with the usual prefixes."""
    torch.manual_seed(9)
    trained = Small()
    torch.save(shape(trained.state_dict()), tmp_path / "w.pt")
    loaded = load_network(Settings(model=MODEL, weights=str(tmp_path / "w.pt")))
    assert torch.equal(trained.eval()(pixels()), loaded(pixels()))


def test_weights_in_safetensors(tmp_path: Path) -> None:
    """A .safetensors file is read, and a damaged one is told."""
    torch.manual_seed(9)
    trained = Small()
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    settings = Settings(model=MODEL, weights=str(tmp_path / "w.safetensors"))
    assert torch.equal(trained.eval()(pixels()), load_network(settings)(pixels()))
    (tmp_path / "w.safetensors").write_bytes(b"nothing")
    with pytest.raises(BadConfig, match=r"cannot read .*w\.safetensors"):
        load_network(settings)


def test_weights_need_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package, the message says how to get it."""
    monkeypatch.setitem(sys.modules, "safetensors", None)
    (tmp_path / "w.safetensors").touch()
    with pytest.raises(BadConfig, match="pip install safetensors"):
        load_network(Settings(model=MODEL, weights=str(tmp_path / "w.safetensors")))


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    """Missing, unknown and misshapen weights are told by name, the first three of each."""
    weights = Small(classes=9).state_dict()
    weights["stem.weight"] = weights.pop("features.0.weight")
    torch.save(weights, tmp_path / "w.pt")
    with pytest.raises(BadConfig) as raised:
        load_network(Settings(model=MODEL, weights=str(tmp_path / "w.pt")))
    assert str(raised.value) == (
        f"gradcam.weights: {tmp_path}/w.pt does not fit the model: "
        "1 missing in the file: features.0.weight; 1 unknown to the model: stem.weight; "
        "2 of another shape: head.weight is (9, 6), the model wants (4, 6), "
        "head.bias is (9,), the model wants (4,)"
    )


class Evil:
    """What pickle would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("never",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "loss": 0.5}, "holds no weights"),
        (Evil(), "cannot read .* with weights_only"),
        (None, "cannot read"),
    ],
    ids=["no weights", "code", "damaged"],
)
def test_a_file_that_holds_no_weights(content: object, message: str, tmp_path: Path) -> None:
    """Other content, code and damage are told apart from weights, and nothing is run."""
    torch.save(content, tmp_path / "w.pt")
    if content is None:
        (tmp_path / "w.pt").write_bytes((tmp_path / "w.pt").read_bytes()[:100])
    with pytest.raises(BadConfig, match=message):
        load_network(Settings(model=MODEL, weights=str(tmp_path / "w.pt")))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "nowhere:build"}, r"gradcam\.model: nowhere:build: there is no module nowhere"),
        ({"model": "tests.unit.gradcam_nets:bild"}, "did you mean build"),
        ({"model": "tests.unit.gradcam_nets:torch"}, "module, which cannot be called"),
        ({"model": "tests.unit.gradcam_nets:pixels"}, "returned a Tensor, not a torch.nn.Module"),
        ({"model": "absent.pt"}, r"no file absent\.pt here"),
        ({"model": "absent.pt", "args": {"a": 1}}, r"gradcam\.args: only for pkg:build"),
        ({"model": MODEL, "weights": "absent.pt"}, r"gradcam\.weights: no file absent\.pt here"),
    ],
)
def test_a_model_that_cannot_be_built(fields: dict[str, Any], message: str) -> None:
    """Each mistake in the name of a model names the field, and what is wrong."""
    with pytest.raises(BadConfig, match=message):
        load_network(Settings(**fields))


@pytest.mark.parametrize("name", ["w.pt", "w.pt2"])
def test_weights_given_as_a_model(name: str, tmp_path: Path) -> None:
    """A state_dict where a whole model is wanted is told."""
    torch.save(Small().state_dict(), tmp_path / name)
    with pytest.raises(BadConfig, match=r"is no (TorchScript file|file of torch\.export)"):
        load_network(Settings(model=str(tmp_path / name)))


class Residual(nn.Module):
    """Convolutions not named in the order in which they run, and one behind the pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv2d(4, 4, 3, padding=1)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.squeeze = nn.Conv2d(4, 2, 1)
        self.unused = nn.Conv2d(4, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the scores of the classes."""
        maps = self.last(torch.relu(self.first(image)))
        return self.squeeze(maps.mean(dim=(2, 3), keepdim=True))


def test_the_last_convolution_is_the_last_that_runs() -> None:
    """By default the layer is the convolution that runs last and gives a map, in whatever order."""
    explainer = Explainer(Network(Residual()), Settings(model="x"))
    first = explainer.explain(pixels(), lambda _: 1)
    assert first.layer == "last"
    assert explainer.layers == ["last"]
    assert np.array_equal(first.heat, explainer.explain(pixels(), lambda _: 1).heat)


def test_a_model_without_a_map() -> None:
    """When no convolution gives more than one pixel, the message asks for a layer."""
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 2, 1), nn.Flatten())
    with pytest.raises(BadConfig, match="larger than one pixel"):
        Explainer(Network(network), Settings(model="x")).explain(pixels(), lambda _: 0)


def test_a_model_without_convolutions() -> None:
    """The message lists the layers there are; a transformer's norms come first."""
    with pytest.raises(BadConfig, match="no convolution; name a layer; there are: 0, 1"):
        targets(Network(nn.Sequential(nn.Flatten(), nn.Linear(3, 2))), None, tokens=False)
    with pytest.raises(BadConfig, match=r"there are: block\.norm1, block\.norm2"):
        targets(Network(build_transformer()), None, tokens=True)


class Output:
    """As transformers returns it."""

    logits = torch.ones(1, 3)


@pytest.mark.parametrize(
    "output",
    [
        torch.ones(1, 3),
        (torch.ones(1, 3), None),
        {"logits": torch.ones(1, 3), "loss": None},
        Output(),
        torch.ones(1, 3, 1, 1),
    ],
    ids=["tensor", "tuple", "mapping", "object", "map of one pixel"],
)
def test_scores_are_found_in_what_a_model_returns(output: object) -> None:
    """Tensors, tuples, mappings and objects with logits are understood."""
    assert torch.equal(torch.ones(1, 3), logits_of(output))


@pytest.mark.parametrize("output", [None, {"boxes": 1}, torch.ones(3), torch.ones(2, 3)])
def test_what_is_no_scores_is_told(output: object) -> None:
    """Anything else is refused in words."""
    with pytest.raises(BadConfig, match=r"gradcam\.model: it returned"):
        logits_of(output)


class Tuples(nn.Module):
    """A layer that returns a tuple, as many blocks of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(3, 4, 3)

    def forward(self, image: Tensor) -> tuple[Tensor, str]:
        """Return maps and something else."""
        return self.inner(image), "weights"


class UsesTuples(nn.Module):
    """A model around it."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Tuples()

    def forward(self, image: Tensor) -> Tensor:
        """Return the scores of the classes."""
        maps, _ = self.block(image)
        return maps.relu().mean(dim=(2, 3))


def test_a_layer_that_returns_a_tuple() -> None:
    """Its first tensor is the map, and the same as that of the layer which made it."""
    torch.manual_seed(0)
    network = Network(UsesTuples())
    found = [
        Explainer(network, Settings(model="x", layer=layer)).explain(pixels(), lambda _: 1).heat
        for layer in ("block", "block.inner")
    ]
    assert np.array_equal(*found)
