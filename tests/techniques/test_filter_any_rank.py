"""Filter images of series, volumes, features, tokens and channels-last layers, and from images of one's own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import ChannelsObjective, FilterVisualization, InputError, LayerError, compare, explain
from attribution.techniques.filter_visualization.parametrization import Fourier
from attribution.techniques.filter_visualization.penalties import penalty
from attribution.techniques.filter_visualization.transforms import Transforms
from tests.conftest import BACKENDS, build, noise
from tests.layers.anything import ChannelsLast, Features, Mixer, Recurrent, SequenceFirst, Series, Tokens, Volumes, made
from tests.layers.test_axes import seen
from tests.techniques.filters import PLAIN, looped

IMAGE = (12, 20)
# model, size, layer, channels' axis, examples' axis, channels
CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str, int, int]] = {
    "series": (Series, (11,), "body", 1, 0),
    "volumes": (Volumes, (5, 7, 9), "body", 1, 0),
    "features": (Features, (), "body", 1, 0),
    "tokens": (Tokens, IMAGE, "mlp", 2, 0),
    "sequence first": (SequenceFirst, IMAGE, "same", 2, 1),
    "channels last": (ChannelsLast, IMAGE, "block", 3, 0),
    "flattened": (Mixer, IMAGE, "flat", 1, 0),
    "input": (ChannelsLast, IMAGE, "block:in", 3, 0),
    "item": (Recurrent, IMAGE, "gate[0]", 1, 0),
}


def output(model: nn.Module, layer: str, x: Tensor) -> Tensor:
    """With graph, by a hook of the test's own."""
    path, entry, _ = layer.partition("[")[0].partition(":in")
    found: list[Tensor] = []
    module = model.get_submodule(path)
    if entry:
        handle = module.register_forward_pre_hook(lambda module, args: found.append(args[0].clone()))
    else:
        handle = module.register_forward_hook(
            lambda module, args, given: found.append((given[0] if "[" in layer else given).clone())
        )
    model(x)
    handle.remove()
    return found[0]


@BACKENDS
@pytest.mark.parametrize("channels", [(2,), (5, 0, 3)])
@pytest.mark.parametrize("case", CASES)
def test_the_ascent_is_the_loop(case: str, channels: tuple[int, ...], backend: str) -> None:
    make, size, layer, axis, _ = CASES[case]
    model = made(make)
    channels = tuple(channel % 4 for channel in channels) if case == "item" else channels
    channels = tuple(dict.fromkeys(channels))
    technique = FilterVisualization(layer=layer, channels=channels, steps=4, size=size, **PLAIN)  # type: ignore[arg-type]
    result = explain(model, None, technique, backend=backend)
    start = technique.start(model)
    assert result.map.shape == start.shape == (len(channels), start.shape[1], *size)
    for index, channel in enumerate(channels):
        image, told = looped(
            start[index : index + 1],
            lambda x, channel=channel: output(model, layer, x).select(axis, channel).mean(),  # type: ignore[misc]
            steps=4,
            step_size=0.05,
        )
        assert (result.map[index] - image[0]).abs().max() <= 1e-10 * image.abs().max()
        found = result.extras["objective"][:, index]
        assert (found - torch.tensor(told, dtype=torch.float64)).abs().max() <= 1e-10 * max(1.0, *map(abs, told))
    result.figure()


@pytest.mark.parametrize("case", ["tokens", "channels last", "sequence first"])
def test_a_rule_that_reads_axis_one_is_caught(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, size, layer, axis, _ = CASES[case]
    model = made(make)
    technique = FilterVisualization(layer=layer, channels=(2,), steps=4, size=size, **PLAIN)  # type: ignore[arg-type]
    right = explain(model, None, technique).map
    monkeypatch.setattr("attribution.layers.axes._side", lambda *_: "first")
    assert (explain(model, None, technique).map - right).abs().max() > 1e-3
    stated = FilterVisualization(layer=layer, channels=(2,), steps=4, size=size, channel_axis=axis, **PLAIN)  # type: ignore[arg-type]
    assert torch.equal(explain(model, None, stated).map, right)


@pytest.mark.parametrize("case", ["series", "volumes", "features", "tokens", "channels last"])
def test_the_backends_agree_at_the_defaults(case: str) -> None:
    make, size, layer, _, _ = CASES[case]
    technique = FilterVisualization(layer=layer, channels=(0, 3), steps=20, size=size, tv=0.1, jitter=1)
    model = made(make)
    assert compare(model, None, technique).holds
    found = explain(model, None, technique)
    assert (found.extras["objective"][-1] > found.extras["objective"][0]).all()
    if case != "features":
        assert found.map.abs().max() <= 2.5


@pytest.mark.parametrize(("case", "neuron"), [("series", (3,)), ("volumes", (0, 2, 1)), ("channels last", (1, 4))])
@BACKENDS
def test_a_neuron_of_any_rank(case: str, neuron: tuple[int, ...], backend: str) -> None:
    make, size, layer, axis, _ = CASES[case]
    model = made(make)
    technique = FilterVisualization(layer=layer, channels=(4,), neuron=neuron, steps=3, size=size, **PLAIN)  # type: ignore[arg-type]

    def unit(x: Tensor) -> Tensor:
        return output(model, layer, x).movedim(axis, 1)[(0, 4, *neuron)]

    image, _ = looped(technique.start(model), unit, steps=3, step_size=0.05)
    assert (explain(model, None, technique, backend=backend).map - image).abs().max() <= 1e-9 * image.abs().max()
    far = FilterVisualization(layer=layer, channels=(4,), neuron=(99,) * len(neuron), steps=1, size=size)
    with pytest.raises(LayerError, match="no neuron"):
        explain(model, None, far, backend=backend)


def test_one_number_is_for_each_axis() -> None:
    for make, size, shape in ((Series, 9, (1, 2, 9)), (Volumes, 7, (1, 1, 7, 7, 7)), (Tokens, 8, (1, 3, 8, 8))):
        technique = FilterVisualization(layer="head", channels=(0,), steps=1, size=size)
        assert technique.start(made(make)).shape == shape
    assert FilterVisualization(layer="body", channels=(0,), size=()).start(made(Features)).shape == (1, 7)


@BACKENDS
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("case", ["series", "volumes", "features", "channels last"])
def test_from_an_image_of_ones_own(case: str, several: bool, backend: str) -> None:
    make, size, layer, axis, _ = CASES[case]
    model = made(make)
    depth = {"series": 2, "volumes": 1, "features": 7}.get(case, 3)
    form = size if case == "features" else (depth, *size)
    form = (7,) if case == "features" else form
    own = noise(*(2, *form) if several else form, dtype=torch.float64, seed=4)
    given = {"size": ()} if case == "features" else {}
    ask: dict[str, Any] = {"layer": layer, "channels": (1, 3), "steps": 3, "initial": own, **given, **PLAIN}
    technique = FilterVisualization(**ask)
    result = explain(model, None, technique, backend=backend)
    starts = own if several else torch.stack([own, own])
    assert torch.equal(technique.start(model), starts)
    for index, channel in enumerate((1, 3)):
        image, _ = looped(
            starts[index : index + 1],
            lambda x, channel=channel: output(model, layer, x).select(axis, channel).mean(),  # type: ignore[misc]
            steps=3,
            step_size=0.05,
        )
        assert (result.map[index] - image[0]).abs().max() <= 1e-10 * image.abs().max()
    if several:
        turned = explain(model, None, FilterVisualization(**{**ask, "initial": own.flip(0)}))
        assert (turned.map - result.map).abs().max() > 1e-2, "the mutant: the images in another order"


def test_own_images_that_do_not_fit() -> None:
    model = build("cnn")
    for shape, says in (
        ((3, 3, 8, 8), r"this model takes \(C, H, W\), or \(2, C, H, W\)"),
        ((8, 8), "this model takes"),
    ):
        with pytest.raises(InputError, match=says):
            explain(model, None, FilterVisualization(layer="body", channels=(0, 1), initial=noise(*shape)))
    for wrong in (3, torch.ones(3, 8, 8, dtype=torch.int64), torch.full((3, 8, 8), float("nan")), "photo"):
        with pytest.raises(InputError, match=r"FilterVisualization\.initial"):
            FilterVisualization(layer="body", channels=(0,), initial=wrong)  # type: ignore[arg-type]


def test_an_image_on_which_a_channel_sleeps_is_shaken() -> None:
    model = nn.Sequential(nn.Conv2d(3, 1, 1), nn.ReLU())
    with torch.no_grad():
        model[0].weight.fill_(1.0)  # type: ignore[operator]
        model[0].bias.fill_(-0.5)  # type: ignore[operator]
    technique = FilterVisualization(layer="1", channels=(0,), steps=5, initial=torch.zeros(3, 8, 8), noise=0.5)
    result = explain(model, None, technique)
    assert result.extras["status"].tolist() == [0]
    assert result.extras["objective"][-1, 0] > 0


@pytest.mark.parametrize("size", [(9,), (4, 5, 7), (5, 4, 6)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_spectrum_of_any_rank_stands_for_one_image(size: tuple[int, ...], channels: int) -> None:
    space = Fourier(size=size, decorrelated=True, spread=2.0, dtype=torch.float64)
    images = 0.5 * noise(2, channels, *size, dtype=torch.float64)
    spectrum = space.encode(images)
    assert spectrum.shape[1:] == space.shape((channels, *size))
    assert torch.allclose(space.decode(spectrum), images, rtol=1e-9, atol=1e-9)
    drawn = 0.1 * noise(64, *space.shape((1, *size)), dtype=torch.float64)
    assert space.decode(drawn).square().mean().sqrt().item() == pytest.approx(0.2, rel=0.2)


def test_series_and_volumes_move_as_told() -> None:
    moves = Transforms(4, 0.0, 0.0)
    series = noise(1, 2, 15, dtype=torch.float64)
    moved = moves(series, torch.tensor([[0.7, 0.0, 0.9, 0.5]], dtype=torch.float64))
    assert torch.allclose(moved[..., :13], series[..., 2:], atol=1e-9), "2 along T; nothing else"
    volume = noise(1, 2, 6, 9, 8, dtype=torch.float64)
    moved = moves(volume, torch.tensor([[0.0, 0.0, 0.5, 0.25, -0.25]], dtype=torch.float64))
    assert torch.allclose(moved[:, :, 1:, :7, :7], volume[:, :, :5, 2:, 1:], atol=1e-9)
    assert moves(noise(2, 5), torch.zeros(2, 4)).shape == (2, 5)


@pytest.mark.parametrize("shape", [(2, 9), (1, 4, 5, 6), (7,)], ids=str)
def test_the_penalty_of_any_rank_is_the_gradient_of_what_it_says(shape: tuple[int, ...]) -> None:
    images = (2 * noise(1, *shape, dtype=torch.float64)).requires_grad_()
    x = images / 4.0
    smooth = sum((x.diff(dim=dim).square() + 0.1**2).sqrt().sum() for dim in range(2, x.ndim))
    (expected,) = torch.autograd.grad(0.3 * smooth + 0.7 * x.square().sum() / 2, x)
    assert torch.allclose(penalty(images.detach(), 4.0, tv=0.3, l2=0.7), expected, rtol=1e-12)


def test_swin_told_of_a_channel() -> None:
    """The fault that this mends: the objective was the mean of a row, and channel 90 of 96 was refused."""
    from torchvision.models import swin_t

    model = swin_t().eval()
    technique = FilterVisualization.notebook(layer="features.1", channels=(5, 90), steps=1, size=64)
    told = explain(model, None, technique).extras["objective"][0]
    values = seen(model, technique.start(model), "features.1")
    assert torch.allclose(told, values[[0, 1], ..., [5, 90]].mean(dim=(1, 2)), rtol=1e-4)
    assert (told[0] - values[0, 5].mean()).abs() > 1e-3
    assert ChannelsObjective(5)
