import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from torch import Tensor, nn

from tests.unit.gradcam_nets import Small, build, build_transformer, pixels
from workers.gradcam.errors import BadConfig
from workers.gradcam.explain import Explainer
from workers.gradcam.methods import METHODS, Evidence, eigencam, gradcam_plus_plus, scorecam
from workers.gradcam.network import Network
from workers.gradcam.settings import Settings
from workers.gradcam.tokens import vit

CLASS = 2
LAYER = "features.3"


def explainer(**fields) -> Explainer:
    """Give one with these settings, for the small network unless another is given."""
    model = fields.pop("network", None) or build()
    return Explainer(Network(model), Settings(model="here", **fields))


def heat_at_the_layer(method: str, image: Tensor) -> Tensor:
    """The map as a method gives it, before it is drawn to the input's size."""
    drawn: list[Tensor] = []
    one = explainer(method=method)
    formula = METHODS[method]

    def kept(seen: Evidence) -> Tensor:
        drawn.append(formula.formula(seen))
        return drawn[-1]

    one.method = formula._replace(formula=kept)
    one.explain(image, lambda _: CLASS)
    return drawn[0]


def activation_and_slope(network: Small, image: Tensor) -> tuple[Tensor, Tensor]:
    """A and dS/dA, the slope by finite differences in doubles: no autograd involved."""
    network = network.double().eval()
    image = image.double()
    activation = network.features[:4](image).detach()

    def score(changed: Tensor) -> float:
        pooled = torch.relu(changed).mean(dim=(2, 3))
        return network.head(pooled)[0, CLASS].item()

    slope = torch.zeros_like(activation)
    step = 1e-6
    for place in np.ndindex(*activation.shape):
        moved = activation.clone()
        moved[place] += step
        above = score(moved)
        moved[place] -= 2 * step
        slope[place] = (above - score(moved)) / (2 * step)
    return activation[0], slope[0]


@pytest.mark.parametrize("seed", range(5))
def test_gradcam_is_captums_to_the_last_bit(seed: int) -> None:
    """Captum's LayerGradCam gives exactly the same numbers."""
    network, image = build().eval(), pixels(seed=seed)
    oracle = LayerGradCam(network, network.features[3])
    expected = oracle.attribute(image, target=CLASS, relu_attributions=True)[0, 0].detach()
    assert torch.equal(expected, heat_at_the_layer("gradcam", image))
    assert expected.max() > 0


def test_gradcam_is_its_formula() -> None:
    """Explicit loops over finite differences give the same map."""
    activation, slope = activation_and_slope(build(), pixels())
    channels, rows, columns = activation.shape
    expected = np.zeros((rows, columns))
    for row in range(rows):
        for column in range(columns):
            for k in range(channels):
                weight = sum(slope[k, i, j] for i in range(rows) for j in range(columns)) / (
                    rows * columns
                )
                expected[row, column] += weight * activation[k, row, column]
    expected = np.maximum(expected, 0)
    assert heat_at_the_layer("gradcam", pixels()).numpy() == pytest.approx(expected, abs=1e-6)


def test_gradcam_plus_plus_is_its_formula() -> None:
    """Explicit loops over finite differences, with all derivatives of exp(S), give the same map."""
    activation, slope = activation_and_slope(build(), pixels())
    channels, rows, columns = activation.shape
    places = [(i, j) for i in range(rows) for j in range(columns)]
    expected = np.zeros((rows, columns))
    for k in range(channels):
        total = sum(float(activation[k, i, j]) for i, j in places)
        weight = 0.0
        for i, j in places:
            g = float(slope[k, i, j])
            divisor = 2 * g**2 + total * g**3
            share = g**2 / divisor if abs(g) > 1e-9 else 0.0
            weight += share * max(g, 0)
        expected += weight * activation[k].numpy()
    expected = np.maximum(expected, 0)
    found = heat_at_the_layer("gradcam++", pixels()).numpy()
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert found.max() > 0


def test_gradcam_plus_plus_has_no_share_where_nothing_slopes() -> None:
    """A slope of 0 everywhere gives a map of zeros, not of 0/0."""
    still = Evidence(torch.ones(2, 3, 3), torch.zeros(2, 3, 3), lambda masks: masks)
    assert torch.equal(torch.zeros(3, 3), gradcam_plus_plus(still))


def test_layercam_is_its_formula() -> None:
    """Explicit loops over finite differences give the same map."""
    activation, slope = activation_and_slope(build(), pixels())
    channels, rows, columns = activation.shape
    expected = np.zeros((rows, columns))
    for i in range(rows):
        for j in range(columns):
            terms = (
                max(float(slope[k, i, j]), 0) * float(activation[k, i, j]) for k in range(channels)
            )
            expected[i, j] = max(sum(terms), 0)
    found = heat_at_the_layer("layercam", pixels()).numpy()
    assert found == pytest.approx(expected, abs=1e-6)
    assert found.max() > 0


@pytest.mark.parametrize("shape", [(6, 5, 5), (40, 3, 4)], ids=["few channels", "many channels"])
def test_eigencam_is_the_first_singular_vector(shape: tuple[int, int, int]) -> None:
    """A singular value decomposition by numpy gives the same map, whichever side is longer."""
    activation = torch.rand(shape, generator=torch.Generator().manual_seed(3)) - 0.2
    places = activation.numpy().reshape(shape[0], -1).T.astype(np.float64)
    left, values, _ = np.linalg.svd(places, full_matrices=False)
    projection = left[:, 0] * values[0]
    projection *= 1 if projection.sum() >= 0 else -1
    expected = np.maximum(projection, 0).reshape(shape[1:])
    found = eigencam(Evidence(activation, torch.empty(0), lambda masks: masks)).numpy()
    assert found == pytest.approx(expected, abs=1e-5)


def test_scorecam_is_its_formula() -> None:
    """A loop over the channels, one masked image at a time, gives the same map."""
    network, image = build().eval(), pixels()
    with torch.no_grad():
        activation = network.features[:4](image)[0]
        scores = []
        for channel in activation:
            mask = (channel - channel.min()) / (channel.max() - channel.min())
            mask = nn.functional.interpolate(mask[None, None], size=(12, 12), mode="bilinear")
            scores.append(float(network(image * mask)[0, CLASS]))
        weights = np.exp(scores) / np.exp(scores).sum()
        expected = sum(w * channel.numpy() for w, channel in zip(weights, activation, strict=True))
    found = heat_at_the_layer("scorecam", image).numpy()
    assert found == pytest.approx(np.maximum(expected, 0), abs=1e-6)


def test_scorecam_passes_over_channels_without_contrast() -> None:
    """A constant channel is no mask; when all are, the map is zeros and the model is not asked."""
    asked: list[Tensor] = []

    def scores(masks: Tensor) -> Tensor:
        asked.append(masks)
        return torch.zeros(len(masks))

    one = torch.stack([torch.ones(2, 2), torch.tensor([[0.0, 1.0], [2.0, 4.0]])])
    assert torch.equal(one[1], scorecam(Evidence(one, torch.empty(0), scores)))
    assert torch.equal(one[1:] / 4, asked.pop())
    still = Evidence(torch.ones(3, 2, 2), torch.empty(0), scores)
    assert torch.equal(torch.zeros(2, 2), scorecam(still))
    assert asked == []


@pytest.mark.parametrize("method", METHODS)
def test_a_map_has_the_size_of_the_input(method: str) -> None:
    """Each method's map is float32, of the input's rows and columns, finite and not negative."""
    found = explainer(method=method).explain(pixels(10), lambda _: 0)
    assert (found.heat.dtype, found.heat.shape) == (np.dtype("float32"), (10, 10))
    assert np.isfinite(found.heat).all()
    assert found.heat.min() >= 0


@pytest.mark.parametrize("method", METHODS)
def test_a_transformer_is_explained_by_its_tokens(method: str) -> None:
    """Tokens without the class token are laid out as a map, whichever method; the hook is heard."""
    one = explainer(network=build_transformer(), layer="block.norm1", reshape="vit", method=method)
    found = [one.explain(pixels(12), lambda _, index=index: index) for index in range(3)]
    assert {one.heat.shape for one in found} == {(12, 12)}
    assert max(one.heat.std() for one in found) > 0


@pytest.mark.parametrize("extra", [0, 1, 2, 5])
def test_vit_lays_the_last_tokens_out(extra: int) -> None:
    """Whatever stands before the patches (class token, registers) is left out."""
    patches = torch.arange(16.0).reshape(1, 16, 1)
    tokens = torch.cat([torch.full((1, extra, 1), -1.0), patches], dim=1)
    assert torch.equal(torch.arange(16.0).reshape(1, 1, 4, 4), vit(tokens))


def tokens_in_columns(tokens: Tensor) -> Tensor:
    """A user's own: 3x3 patches behind one class token, column by column."""
    return tokens[:, 1:].transpose(1, 2).reshape(1, -1, 3, 3).transpose(2, 3)


def test_a_function_lays_the_tokens_out() -> None:
    """A user's own layout takes the place of the built-in one: here the map lies on its side."""
    found = [
        explainer(network=build_transformer(), layer="block.norm1", reshape=reshape)
        .explain(pixels(12), lambda _: 1)
        .heat
        for reshape in ("vit", f"{__name__}:tokens_in_columns")
    ]
    assert found[0].std() > 0
    assert found[1] == pytest.approx(found[0].T, abs=1e-6)
    with pytest.raises(BadConfig, match=r"vit wants tokens .* the layer gives \(1, 6, 6, 6\)"):
        explainer(reshape="vit", layer="features.3").explain(pixels(), lambda _: 0)


def test_tokens_without_reshape_are_told() -> None:
    """The message says what the layer gives, and names the field that helps."""
    one = explainer(network=build_transformer(), layer="block.norm1")
    with pytest.raises(BadConfig, match=r"\(1, 10, 8\).*reshape: vit"):
        one.explain(pixels(12), lambda _: 1)


def test_a_layer_that_the_score_does_not_need() -> None:
    """A layer behind which nothing leads to the score has no gradient; the message says so."""

    class Aside(Small):
        def forward(self, image: Tensor) -> Tensor:
            self.features[0](image)
            return self.head(image.mean() + torch.zeros(1, 6, requires_grad=True))

    one = explainer(network=Aside(), layer="features.0")
    with pytest.raises(BadConfig, match=r"do not depend on features\.0"):
        one.explain(pixels(), lambda _: 0)


def test_a_layer_that_is_not_used() -> None:
    """A layer that never runs is told by its name."""
    network = build()
    network.spare = nn.Conv2d(3, 3, 1)
    with pytest.raises(BadConfig, match=r"spare was not used"):
        explainer(network=network, layer="spare").explain(pixels(), lambda _: 0)


@pytest.mark.parametrize("broken", ["head.bias", "features.0.bias"])
def test_numbers_that_are_not_finite_are_no_map(broken: str) -> None:
    """NaN in the weights is an error of the item, not a picture of nothing."""
    network = build()
    network.state_dict()[broken].fill_(torch.nan)
    with pytest.raises(ValueError, match="not finite"):
        explainer(network=network).explain(pixels(), lambda _: 0)
