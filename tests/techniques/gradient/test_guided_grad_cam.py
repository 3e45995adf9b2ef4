"""Guided Grad-CAM by both backends: the product of a guided and a plain backward, enlarged by loops."""

from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attribution import (
    GradCAM,
    GuidedBackprop,
    GuidedGradCAM,
    InputError,
    Inputs,
    LayerError,
    ModelError,
    compare,
    explain,
    load,
)
from attribution.layers import grad_cam_layer
from attribution.testing import guard, small_cnn, small_residual
from tests import oracles
from tests.conftest import BACKENDS
from tests.models.kinds import quiet
from tests.techniques.gradient.cases import noise
from tests.techniques.gradient.rectified import by_mode

TARGETS = [[3, 1], [0, 2], [4, 4]]
BUILDS = {"cnn": small_cnn, "residual": small_residual}


def cam(model: Any, x: Tensor, target: int, layer: str, *, relu: bool = True) -> np.ndarray[Any, Any]:
    """(h, w) of one image, with the plain gradient of a leaf that is put in the layer's place."""
    leaf: list[Tensor] = []

    def put(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        leaf.append(output.detach().clone().requires_grad_())
        return leaf[0].clone()

    handle = model.get_submodule(layer).register_forward_hook(put)
    output = model(x.clone())
    handle.remove()
    (gradient,) = torch.autograd.grad(output[0, target], leaf[0])
    total = np.zeros(tuple(leaf[0].shape[2:]))
    for k in range(leaf[0].shape[1]):
        total += gradient[0, k].numpy().mean() * leaf[0][0, k].detach().numpy()
    return np.maximum(total, 0) if relu else total


def enlarged(plane: np.ndarray[Any, Any], height: int, width: int) -> Tensor:
    return torch.from_numpy(np.array(oracles.bilinear(plane, height, width)))


def nearest(plane: np.ndarray[Any, Any], height: int, width: int) -> Tensor:
    return F.interpolate(torch.from_numpy(plane)[None, None], size=(height, width))[0, 0]


def expected(model: nn.Module, x: Tensor, layer: str, **mutant: Any) -> Tensor:
    rule, large, rectified = mutant.get("rule", "guided"), mutant.get("large", enlarged), mutant.get("relu", True)
    return torch.stack(
        [
            torch.stack(
                [
                    by_mode(model, image, t, rule)[0]
                    * large(cam(model, image, t, layer, relu=rectified), *image.shape[2:])
                    for t in row
                ]
            )
            for image, row in zip(x.split(1), TARGETS, strict=False)
        ]
    )


def off(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


@pytest.mark.parametrize("layer", ["body", "stem", "pool"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("build", BUILDS)
@BACKENDS
def test_both_backends_are_the_product(backend: str, build: str, batch: int, layer: str) -> None:
    model, x = BUILDS[build](dtype=torch.float64), noise(3, 3, 17, 23)[:batch]
    with guard(model, x):
        found = explain(model, x, GuidedGradCAM(layer=layer), backend=backend, target=TARGETS[:batch])
    assert off(found.map, expected(model, x, layer)) < 1e-10


@pytest.mark.parametrize(
    "mutant",
    [{"rule": "plain"}, {"rule": "deconvolution"}, {"large": nearest}, {"relu": False}],
    ids=lambda mutant: next(iter(mutant)),
)
@BACKENDS
def test_wrong_ones_are_seen(backend: str, mutant: dict[str, Any]) -> None:
    model, x = small_cnn(dtype=torch.float64), noise(3, 3, 17, 23)
    found = explain(model, x, GuidedGradCAM(layer="body"), backend=backend, target=TARGETS).map
    assert off(found, expected(model, x, "body", **mutant)) > 1e-3


@BACKENDS
def test_the_gradient_of_the_cam_is_plain(backend: str) -> None:
    """It is not the guided one, which the same graph has a moment later."""
    model, x = small_cnn(dtype=torch.float64), noise(2, 3, 17, 23)
    asked: dict[str, Any] = {"backend": backend, "target": TARGETS[:2]}
    product = explain(model, x, GuidedGradCAM(layer="stem"), **asked).map
    factors = [explain(model, x, each, **asked) for each in (GuidedBackprop(), GradCAM(layers=("stem",)))]
    assert off(product, factors[0].map * factors[1].map.unsqueeze(2)) < 1e-10


def test_the_default_layer_is_that_of_grad_cam() -> None:
    model, x = small_cnn(), noise(2, 3, 17, 23).float()
    found = compare(model, x, GuidedGradCAM(), target=1)
    assert found.holds
    assert {each.technique.layer for each in found.attributions.values()} == {grad_cam_layer(model, Inputs.of(x))}  # type: ignore[attr-defined]


class Tokens(nn.Module):
    """A layer with channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.linear, self.head = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(4, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.linear(self.relu(self.conv(x)).permute(0, 2, 3, 1)).square().mean((1, 2)))
        return out


@BACKENDS
def test_layers_with_channels_last(backend: str) -> None:
    model, x = Tokens().double(), noise(2, 3, 9, 11)
    asked = GuidedGradCAM(layer="linear", tokens="channels_last")
    found = explain(model, x, asked, backend=backend, target=TARGETS[:2]).map
    factors = [
        explain(model, x, each, target=TARGETS[:2]).map
        for each in (GuidedBackprop(), GradCAM(layers=("linear",), tokens="channels_last"))
    ]
    assert off(found, factors[0] * factors[1].unsqueeze(2)) < 1e-10


def one(dimensions: int) -> nn.Module:
    convolution: Any = {1: nn.Conv1d, 3: nn.Conv3d}[dimensions]
    pool: Any = {1: nn.AdaptiveAvgPool1d, 3: nn.AdaptiveAvgPool3d}[dimensions]
    layers = [convolution(2, 4, 2), nn.ReLU(), convolution(4, 3, 2), nn.ReLU(), pool(1), nn.Flatten(), nn.Linear(3, 5)]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        for layer in layers:
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize(("dimensions", "size", "mode"), [(1, (9,), "linear"), (3, (5, 6, 7), "trilinear")])
@BACKENDS
def test_series_and_volumes(backend: str, dimensions: int, size: tuple[int, ...], mode: str) -> None:
    model, x = one(dimensions), noise(2, 2, *size)
    found = explain(model, x, GuidedGradCAM(layer="2"), backend=backend, target=TARGETS[:2]).map
    raw = explain(model, x, GradCAM(layers=("2",), upsample=False), target=TARGETS[:2]).map
    guided = explain(model, x, GuidedBackprop(), target=TARGETS[:2]).map
    assert off(found, guided * F.interpolate(raw, size=size, mode=mode).unsqueeze(2)) < 1e-10


class Pair(nn.Module):
    """Two images of different sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(4, 5)
        self.other, self.last = nn.Conv2d(3, 4, 3), nn.ReLU()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        shared = self.relu(self.conv(a)).mean((2, 3)) * self.last(self.other(b)).mean((2, 3))
        out: Tensor = self.head(shared)
        return out


@BACKENDS
def test_two_images_each_at_its_own_size(backend: str) -> None:
    model, given = Pair().double(), (noise(2, 3, 9, 11), noise(2, 3, 7, 8, seed=1))
    asked: dict[str, Any] = {"backend": backend, "target": TARGETS[:2]}
    found = explain(model, given, GuidedGradCAM(layer="conv"), **asked).maps
    raw = explain(model, given, GradCAM(layers=("conv",), upsample=False), **asked).map
    guided = explain(model, given, GuidedBackprop(), **asked).maps
    for key, x in zip(("input.0", "input.1"), given, strict=True):
        large = F.interpolate(raw, size=tuple(x.shape[2:]), mode="bilinear")
        assert off(found[key], guided[key] * large.unsqueeze(2)) < 1e-10


class Beside(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(10, 5)

    def forward(self, image: Tensor, table: Tensor) -> Tensor:
        out: Tensor = self.head(torch.cat([self.relu(self.conv(image)).mean((2, 3)), table], dim=1))
        return out


@BACKENDS
def test_what_does_not_lie_on_the_layer_is_refused(backend: str) -> None:
    """Captum gives an empty tensor, and a warning."""
    model, image, table = Beside(), noise(2, 3, 9, 11).float(), noise(2, 6).float()
    with pytest.raises(LayerError, match=r"'conv' has 2 axes of places, 'input\.1' has 0"):
        explain(model, (image, table), GuidedGradCAM(layer="conv"), backend=backend, target=1)
    found = explain(
        model, Inputs.of((image, table), axes={1: "n"}), GuidedGradCAM(layer="conv"), backend=backend, target=1
    )
    assert found.map.shape == (2, 1, 3, 9, 11)
    with pytest.raises(LayerError, match="'head' has 0 axes"):
        explain(small_cnn(), image, GuidedGradCAM(layer="head"), backend=backend, target=1)
    with pytest.raises(LayerError):
        explain(small_cnn(), image, GuidedGradCAM(layer="bodi"), backend=backend, target=1)


def test_known_disagreement_captum_gives_an_empty_map() -> None:
    model, x = small_cnn(), noise(2, 3, 9, 11).float()
    with quiet():
        method = captum.attr.GuidedGradCam(model, model.get_submodule("head"))
        assert method.attribute(x, target=1, interpolate_mode="bilinear").numel() == 0
        method = captum.attr.GuidedGradCam(model, model.get_submodule("body"))
        near, smooth = (method.attribute(x, target=1, interpolate_mode=mode) for mode in ("nearest", "bilinear"))
    assert off(near, smooth) > 0.05


@BACKENDS
def test_nets_without_a_relu_are_refused(backend: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    with pytest.raises(ModelError, match="plain gradient"):
        explain(model, noise(2, 3, 9, 11).float(), GuidedGradCAM(layer="0"), backend=backend, target=1)


def test_fields_files_and_equality(tmp_path: Any) -> None:
    asked = GuidedGradCAM(layer="body", channels="max")
    found = explain(small_cnn(), noise(2, 3, 9, 11).float(), asked, target=1)
    assert found.map.shape == (2, 1, 9, 11)
    read = load(found.save(tmp_path / "map.safetensors"))
    assert read.technique == asked
    assert torch.equal(read.map, found.map)
    assert asked != GuidedGradCAM(layer="body")
    for fields in ({"tokens": "last"}, {"layer": 3}, {"channels": "mean"}):
        with pytest.raises(InputError):
            GuidedGradCAM(**fields)
