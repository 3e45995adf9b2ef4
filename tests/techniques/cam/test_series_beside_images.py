"""Layers of three axes in models that see an image: a convolution over steps is never read as patches."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Activations, LayerError, explain
from tests.conftest import BACKENDS, noise
from tests.techniques.cam import loops
from tests.techniques.cam.nets import CLASSES, seeded
from tests.techniques.cam.test_any_layer import TECHNIQUES

IMAGE, SERIES = noise(2, 3, 32, 32, dtype=torch.float64), noise(2, 2, 50, dtype=torch.float64, seed=1)


class Two(nn.Module):
    """An image and a series; 64 channels would be 8 × 8 patches of the image, 65 one token more."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image = nn.Conv2d(3, width, 3, padding=1)
        self.series = nn.Sequential(nn.Conv1d(2, width, 3, padding=1), nn.BatchNorm1d(width), nn.Tanh())
        self.head = nn.Linear(width, CLASSES)

    def forward(self, image: Tensor, series: Tensor) -> Tensor:
        a = self.series(series)
        return self.head((self.image(image).mean((2, 3)) + (a * a.roll(1, -1)).mean(-1)).tanh())  # type: ignore[no-any-return]


class Flat(nn.Module):
    """A grid of 8 × 8 that is flattened before a convolution over its 64 places."""

    def __init__(self, width: int, window: int = 1) -> None:
        super().__init__()
        self.image, self.series = nn.Conv2d(3, 5, 4, 4), nn.Conv1d(5, width, window)
        self.act, self.head = nn.Tanh(), nn.Linear(width, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        a = self.act(self.series(self.image(image).flatten(2)))
        return self.head((a * a.roll(1, -1)).mean(-1))  # type: ignore[no-any-return]


class Linears(nn.Module):
    """An image, and a series whose channels come last behind a linear layer: (N, T, D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image, self.body, self.head = nn.Conv2d(3, width, 3), nn.Linear(2, width), nn.Linear(width, CLASSES)

    def forward(self, image: Tensor, series: Tensor) -> Tensor:
        a = self.body(series.mT)
        return self.head((self.image(image).mean((2, 3)) + (a * a.roll(1, 1)).mean(1)).tanh())  # type: ignore[no-any-return]


def looped(technique: str, model: nn.Module, given: tuple[Tensor, ...], layer: str, *, last: bool = False) -> Tensor:
    """One example after the other, channel by channel."""
    rows = []
    for n in range(2):
        activation, found = loops.gradients(
            lambda n=n: model(*(each[n : n + 1] for each in given)),  # type: ignore[misc]
            model.get_submodule(layer),
            lambda output: [output[0, 2], output[0, 4]],  # type: ignore[index]
        )
        values = (lambda a: a[0].mT) if last else (lambda a: a[0])
        rows.append(loops.cam(loops.FORMULAS[technique], values, values(activation).shape[1:], activation, found))
    return torch.stack(rows)


def raw(technique: str, model: nn.Module, given: Any, layer: str, backend: str) -> Tensor:
    result = explain(model, given, TECHNIQUES[technique](layers=(layer,)), target=[(2, 4)] * 2, backend=backend)
    return result.raw[layer]


@BACKENDS
@pytest.mark.parametrize("technique", ["grad_cam", "layer_cam"])
@pytest.mark.parametrize("layer", ["series", "series.0", "series.1", "series.2"])
@pytest.mark.parametrize("width", [4, 64, 65])
def test_a_series_beside_an_image(width: int, layer: str, technique: str, backend: str) -> None:
    model = seeded(lambda: Two(width))
    expected = looped(technique, model, (IMAGE, SERIES), layer)
    assert expected.shape == (2, 2, 50)
    for given in ((IMAGE, SERIES), {"series": SERIES, "image": IMAGE}):
        found = raw(technique, model, given, layer, backend)
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)
    means = explain(model, (IMAGE, SERIES), Activations(layers=(layer,), reduce="mean"), backend=backend).map
    assert means.shape == (2, width), "of the same channels"


@BACKENDS
@pytest.mark.parametrize("technique", ["grad_cam", "layer_cam"])
@pytest.mark.parametrize("layer", ["series", "act"])
@pytest.mark.parametrize("width", [12, 16, 17])
def test_a_convolution_over_flattened_places(width: int, layer: str, technique: str, backend: str) -> None:
    model = seeded(lambda: Flat(width))
    expected = looped(technique, model, (IMAGE,), layer)
    found = raw(technique, model, IMAGE, layer, backend)
    assert found.shape == (2, 2, 64)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


@BACKENDS
@pytest.mark.parametrize("technique", ["grad_cam", "layer_cam"])
def test_a_convolution_that_gives_the_turned_sizes_of_the_grid(technique: str, backend: str) -> None:
    """64 channels and 5 places, where the grid has 5 channels and 64 places: the layer's own type tells."""
    model = seeded(lambda: Flat(64, 60))
    found = raw(technique, model, IMAGE, "series", backend)
    assert found.shape == (2, 2, 5)
    assert torch.allclose(found, looped(technique, model, (IMAGE,), "series"), rtol=1e-9, atol=1e-12)


@BACKENDS
@pytest.mark.parametrize("width", [16, 50])
def test_steps_with_channels_last_beside_an_image(width: int, backend: str) -> None:
    model = seeded(lambda: Linears(width))
    expected = looped("grad_cam", model, (IMAGE, SERIES), "body", last=True)
    found = raw("grad_cam", model, (IMAGE, SERIES), "body", backend)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


@BACKENDS
def test_steps_that_are_as_many_as_patches_are_refused(backend: str) -> None:
    with pytest.raises(LayerError, match=r"\(N, 0 \+ 8·8, D\) or \(N, t, D\).*GradCAM\(tokens="):
        raw("grad_cam", seeded(lambda: Linears(7)), (IMAGE, noise(2, 2, 64, dtype=torch.float64)), "body", backend)
