"""Options, transforms, penalties and objectives, against their definitions."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from attribution import Execution, FilterVisualization, InputError, LayerError, compare, explain, zoo
from attribution.techniques.filter_visualization import DEAD, DIVERGED, FIRST_STEP, OK
from attribution.techniques.filter_visualization.penalties import penalty
from attribution.techniques.filter_visualization.transforms import Transforms
from tests.conftest import BACKENDS, build, noise

SIZE = (17, 23)
STILL: dict[str, Any] = {"jitter": 0, "scale": 0.0, "rotate": 0.0}
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "pixels by Adam": {"parametrization": "pixel"},
    "pixels in decorrelated colours": {"parametrization": "pixel", "decorrelate": True},
    "spectrum in plain colours": {"decorrelate": False},
    "spectrum by normalised steps": {"optimizer": "normalized"},
    "penalties": {"tv": 0.2, "l2": 0.1},
    "still": STILL,
    "large values": {"spread": 64.0},
    "neuron": {"neuron": (1, 4)},
    "class": {"layer": "logits"},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-10)], ids=str)
def test_options_agree_between_backends_and_do_not_see_neighbours(
    name: str, dtype: torch.dtype, tolerance: float
) -> None:
    model = build("residual", dtype)
    ask: dict[str, Any] = {"layer": "body", "steps": 12, "size": SIZE, **OPTIONS[name]}
    technique = FilterVisualization(**ask, channels=(4, 1, 3))
    assert compare(model, None, technique).holds
    together = explain(model, None, technique)
    alone = [explain(model, None, replace(technique, channels=(channel,))) for channel in technique.channels]
    first = torch.cat([one.raw[FIRST_STEP] for one in alone])
    assert (first - together.raw[FIRST_STEP]).abs().max() <= tolerance * first.abs().max()
    final = torch.cat([one.extras["objective"][-1] for one in alone])
    assert ((final - together.extras["objective"][-1]).abs() <= 0.01 * final.abs() + 1e-4).all()
    assert (first - first.roll(1, dims=0)).abs().max() > 100 * tolerance * first.abs().max(), "all the same image"


def test_transforms_move_as_told() -> None:
    images = noise(2, 3, 12, 16)
    draws = torch.zeros(2, 4)
    for still in (Transforms(0, 0.0, 0.0), Transforms(3, 0.2, 30.0)):
        assert torch.allclose(still(images, draws), images, atol=1e-5)
    shifted = Transforms(4, 0.0, 0.0)(images, torch.tensor([[0, 0, 0.5, 0.26]]).expand(2, 4))
    assert torch.allclose(shifted[..., :10, :15], images[..., 2:, 1:], atol=1e-5), "whole pixels: 2 down, 1 right"
    square = noise(1, 1, 9, 9)
    turned = Transforms(0, 0.0, 90.0)(square, torch.tensor([[1.0, 0, 0, 0]]))
    assert torch.allclose(turned, square.rot90(dims=(2, 3)), atol=1e-4) or torch.allclose(
        turned, square.rot90(-1, dims=(2, 3)), atol=1e-4
    )
    wide = torch.linspace(-1, 1, 33).expand(1, 1, 33, 33)
    larger = Transforms(0, 0.5, 0.0)(wide, torch.tensor([[0, 1.0, 0, 0]]))
    assert larger[0, 0, 16, 32].item() == pytest.approx(wide[0, 0, 16, 32].item() / 1.5, abs=0.02)


def test_transforms_are_drawn_per_channel_and_seed() -> None:
    moves = Transforms(8, 0.1, 5.0)
    together, alone = moves.draws(3, (5, 2), 40), moves.draws(3, (2,), 40)
    assert torch.equal(together[1], alone[0])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(moves.draws(4, (2,), 40), alone)
    assert together.min() >= -1
    assert together.max() < 1
    assert together.abs().max() > 0.9
    before = torch.get_rng_state()
    moves.draws(0, (1,), 2)
    assert torch.equal(before, torch.get_rng_state()), "torch's own random numbers were drawn"


@pytest.mark.parametrize(("tv", "l2"), [(0.3, 0.0), (0.0, 0.7), (0.2, 0.5)])
def test_the_penalty_is_the_gradient_of_what_it_says(tv: float, l2: float) -> None:
    images = (2 * noise(1, 3, 5, 7, dtype=torch.float64)).requires_grad_()
    x = images / 4.0
    smooth = sum((x.diff(dim=dim).square() + 0.1**2).sqrt().sum() for dim in (2, 3))
    (expected,) = torch.autograd.grad(tv * smooth + l2 * x.square().sum() / 2, x)
    assert torch.allclose(penalty(images.detach(), 4.0, tv=tv, l2=l2), expected, rtol=1e-12)


def test_penalties_smooth_and_shrink() -> None:
    model = build("cnn")
    ask = FilterVisualization(layer="body", channels=(0, 1), steps=30, size=32, **STILL, parametrization="pixel")
    plain, smooth, small = (explain(model, None, t).map for t in (ask, replace(ask, tv=1.0), replace(ask, l2=2.0)))
    rough = [(x.diff(dim=2).abs().mean() / x.std()).item() for x in (plain, smooth)]
    assert rough[1] < 0.8 * rough[0]
    assert small.std() < 0.8 * plain.std()


def test_the_notebook_is_plain_ascent() -> None:
    """The preset against the two lines it stands for."""
    model = build("cnn", torch.float64)
    assert isinstance(model, nn.Sequential)
    technique = FilterVisualization.notebook(layer="body", channels=(3,), size=SIZE)
    assert (technique.steps, technique.step_size, technique.noise, technique.size) == (60, 0.05, 0.1, SIZE)
    x = technique.start(model).requires_grad_()
    for _ in range(60):
        (g,) = torch.autograd.grad(model[:4](x)[:, 3].mean(), x)
        x = (x + 0.05 * g / (g.std() + 1e-8)).detach().requires_grad_()
    result = explain(model, None, technique)
    assert torch.allclose(result.map, x, rtol=1e-8, atol=1e-10)
    assert result.extras["objective"][-1] > result.extras["objective"][0]
    assert not torch.allclose(explain(model, None, replace(technique, step_size=0.051)).map, x, rtol=1e-3)


def test_class_logits_are_the_channels_of_logits() -> None:
    model = build("cnn")
    technique = FilterVisualization(layer="logits", channels=(3, 1), steps=20, size=32)
    result = explain(model, None, technique)
    logits = model(result.map).detach()
    assert torch.allclose(logits[[0, 1], [3, 1]], result.extras["objective"][-1], rtol=1e-4, atol=1e-5)
    assert (logits[[0, 1], [3, 1]] > model(technique.start(model)).detach()[[0, 1], [3, 1]]).all()
    with pytest.raises(LayerError, match="no channel 5"):
        explain(model, None, replace(technique, channels=(5,)))


def test_a_module_called_logits_comes_first() -> None:
    model = nn.Sequential()
    model.add_module("logits", nn.Conv2d(3, 4, 3))
    model.add_module("rest", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)))
    assert explain(model, None, FilterVisualization(layer="logits", channels=(3,), steps=1, size=8)).map.shape[0] == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"neuron": "middle"},
        {"neuron": 3},
        {"neuron": ()},
        {"neuron": (-1, 0)},
        {"parametrization": "wavelet"},
        {"optimizer": "sgd"},
        {"spread": 0},
        {"spread": float("nan")},
        {"jitter": -1},
        {"jitter": 1.5},
        {"scale": 1.0},
        {"rotate": -1},
        {"tv": -0.1},
        {"l2": float("inf")},
    ],
    ids=str,
)
def test_out_of_range(fields: dict[str, Any]) -> None:
    (name,) = fields
    with pytest.raises(InputError, match=rf"FilterVisualization\.{name}"):
        FilterVisualization(layer="body", channels=(0,), **fields)


def test_a_channel_that_sleeps_at_the_start_is_woken() -> None:
    """A ReLU that opens only for stronger noise than the start's: other seeds find it."""
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())
    conv = model[0]
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight.fill_(1.0)
        conv.bias.copy_(torch.tensor([-1.5, -1e6]))
    technique = FilterVisualization(layer="1", channels=(0, 1), steps=15, size=16)
    result = explain(model, None, technique)
    assert result.extras["status"].tolist() == [OK, DEAD]
    assert result.extras["objective"][-1, 0] > result.extras["objective"][0, 0] > 0
    assert not result.map[1].any()


def test_a_dead_channel_costs_no_more_steps() -> None:
    model = build("cnn")
    body = model.get_submodule("body")
    assert isinstance(body, nn.Conv2d)
    with torch.no_grad():
        body.weight[1:] = 0

    def ask(steps: int) -> int:
        technique = FilterVisualization(layer="body", channels=(1, 2), steps=steps, size=SIZE)
        return flops(lambda: explain(model, None, technique))

    ask(1)  # looks once at the layers
    assert ask(4) == ask(40)


@BACKENDS
def test_adam_that_diverges_is_stopped(backend: str) -> None:
    technique = FilterVisualization(
        layer="body", channels=(0, 1), steps=20, step_size=1e38, size=SIZE, parametrization="pixel"
    )
    result = explain(build("cnn"), None, technique, backend=backend)
    assert result.map.isfinite().all()
    assert DIVERGED in result.extras["status"].tolist()


def flops(call: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


@BACKENDS
@pytest.mark.parametrize(("layer", "modules"), [("body", 4), ("body_relu", 5)])
def test_a_step_is_a_truncated_forward_and_its_gradient(backend: str, layer: str, modules: int) -> None:
    """Counted: nothing after the layer runs, no weight gets a gradient, and `hooks` spares a last convolution."""
    model = build("cnn")
    assert isinstance(model, nn.Sequential)
    images = noise(3, 3, 24, 24).requires_grad_()
    needed = model[:3] if backend == "hooks" and layer == "body" else model[:modules]
    forward = flops(lambda: needed(images.detach()))
    whole = flops(lambda: torch.autograd.grad(needed(images.clone()).sum(), images))

    def ask(steps: int) -> int:
        # the mixing of colours is a product of matrices, and would be counted
        technique = FilterVisualization.notebook(layer=layer, channels=(0, 1, 2), steps=steps, size=24)
        return flops(lambda: explain(model, None, technique, backend=backend))

    ask(1)
    step = (ask(11) - ask(1)) / 10
    assert step == whole
    assert step <= 2 * forward
    wasteful = flops(lambda: torch.autograd.grad(needed(images.clone()).sum(), [images, *needed.parameters()]))
    assert whole < wasteful


def test_the_spread_of_photos_comes_with_the_model() -> None:
    loaded = zoo.load("bundled:squeezenet1_1")
    inputs = loaded.inputs(zoo.sample_photo("coffee"))
    assert loaded.spread == pytest.approx(63.75)
    assert 0.5 < float(inputs.std()) / loaded.spread < 2


def test_chunks_do_not_matter() -> None:
    model = build("depthwise", torch.float64)
    technique = FilterVisualization(layer="body", channels=(0, 1, 2, 3, 4), steps=10, size=SIZE)
    whole, parts = (explain(model, None, technique, execution=Execution(batch_size=size)).map for size in (None, 2))
    assert (whole - parts).abs().max() <= 1e-8 * whole.abs().max()
