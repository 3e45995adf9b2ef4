"""One neuron: the crop that it sees gives the image that the whole gives."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import FilterVisualization, LayerError, explain
from attribution.techniques.filter_visualization import find_crop, receptive_field
from attribution.testing import calibrated
from tests.conftest import BACKENDS, build, noise


def deep() -> nn.Module:
    """Strides, pools and paddings, so that a crop has something to get wrong."""

    def make() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 6, 5, stride=2, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(6, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 6, 3, padding=1, dilation=1),
            nn.Flatten(),
        )

    return calibrated(make, 0, torch.float64)


@pytest.mark.parametrize("neuron", [(5, 6), "center", (0, 0), (0, 7), (11, 15)], ids=str)
@pytest.mark.parametrize("parametrization", ["pixel", "fourier"])
def test_the_crop_of_a_neuron_gives_the_image_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, neuron: Any, parametrization: Any
) -> None:
    model = deep()
    technique = FilterVisualization(
        layer="6", channels=(0, 3), neuron=neuron, steps=10, size=(48, 64), parametrization=parametrization
    )
    cropped = explain(model, None, technique)
    monkeypatch.setattr("attribution_hooks.filter_visualization.attributor.find_crop", lambda *_: None)
    whole = explain(model, None, technique)
    assert str(cropped.provenance["crop"]).startswith("rows ")
    assert whole.provenance["crop"] == "none found"
    assert "crop" not in explain(model, None, replace(technique, neuron=None)).provenance
    assert (cropped.map - whole.map).abs().max() <= 1e-9 * whole.map.abs().max()
    assert torch.allclose(cropped.extras["objective"], whole.extras["objective"], rtol=1e-9)
    assert (whole.map - explain(model, None, replace(technique, neuron=(4, 4))).map).abs().max() > 0.01


@pytest.mark.parametrize("neuron", [(5, 6), (0, 0), (11, 15)], ids=str)
def test_the_gradient_is_zero_outside_the_crop(neuron: tuple[int, int]) -> None:
    model = deep()
    assert isinstance(model, nn.Sequential)
    layer = model[:7]
    crop = find_crop(layer, noise(1, 3, 48, 64, dtype=torch.float64), neuron)
    assert crop is not None
    hit = torch.zeros(48, 64, dtype=torch.bool)
    for seed in range(20):
        image = noise(1, 3, 48, 64, dtype=torch.float64, seed=seed).requires_grad_()
        (g,) = torch.autograd.grad(layer(image)[0, :, neuron[0], neuron[1]].sum(), image)
        hit |= (g != 0).any(dim=1)[0]
    inside = torch.zeros_like(hit)
    inside[crop.rows, crop.columns] = True
    assert not (hit & ~inside).any()
    rows = hit.any(dim=1).nonzero()[:, 0]
    assert crop.rows.start <= rows[0] < crop.rows.start + 4, "no more than a stride wider than need be"
    assert crop.rows.stop == rows[-1] + 1


def test_more_images_in_a_forward_find_the_same_crop_in_fewer_forwards() -> None:
    model, image = deep(), noise(1, 3, 48, 64, dtype=torch.float64)
    assert isinstance(model, nn.Sequential)
    layer, batches = model[:7], list[int]()

    def seen(images: Tensor) -> Tensor:
        batches.append(len(images))
        return layer(images)  # type: ignore[no-any-return]

    for neuron in ((5, 6), (0, 0), (11, 15), (0, 15)):
        found, forwards, images = set(), list[int](), list[int]()
        for at_once in (1, 2, 5, 16, 64):
            batches.clear()
            found.add(str(find_crop(seen, image, neuron, at_once)))
            assert max(batches) <= at_once
            forwards.append(len(batches))
            images.append(sum(batches))
        assert len(found) == 1
        assert forwards == sorted(forwards, reverse=True)
        assert images[0] == min(images)
        assert forwards[-1] <= 1 + 2 * 3 + 4  # the shape, three looks along each axis, and the proof
        assert forwards[0] <= 1 + 2 * 3 * 2 * 6 + 4


class Looks(nn.Module):
    """A convolution whose output depends on the whole image, or on where in it the window lies."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv, self.how = nn.Conv2d(3, 4, 3, padding=1), how

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        if self.how == "global":
            return y - y.mean(dim=(2, 3), keepdim=True)
        if self.how == "place":
            return y * torch.linspace(0, 1, y.shape[3], dtype=y.dtype)
        return nn.functional.instance_norm(y)


@pytest.mark.parametrize("how", ["global", "place", "norm"])
def test_where_no_crop_is_exact_there_is_none(how: str) -> None:
    model = Looks(how).double()
    assert find_crop(model, noise(1, 3, 16, 20, dtype=torch.float64), (7, 9)) is None
    technique = FilterVisualization(layer="conv", channels=(0,), neuron=(7, 9), steps=1, size=(16, 20))
    assert explain(model, None, technique).provenance["crop"] == "rows 6:9, columns 8:11"


@BACKENDS
@pytest.mark.parametrize("neuron", [(99, 0), (0, 99)], ids=str)
def test_a_neuron_that_does_not_exist_is_refused(backend: str, neuron: tuple[int, int]) -> None:
    with pytest.raises(LayerError, match="no neuron"):
        explain(build("cnn"), None, FilterVisualization(layer="body", channels=(0,), neuron=neuron), backend=backend)
    with pytest.raises(LayerError, match="leave neuron out"):
        explain(
            build("cnn"), None, FilterVisualization(layer="logits", channels=(0,), neuron="center"), backend=backend
        )


@pytest.mark.parametrize(
    ("part", "on_cpu", "elsewhere"), [(0.0, True, True), (1e-8, False, True), (1e-5, False, False)], ids=str
)
def test_kernels_of_an_accelerator_may_leave_rounding_outside_the_crop(
    part: float, on_cpu: bool, elsewhere: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As kernels do that transform tiles of the image; NaN shows of none of it here."""
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))

    def leaking(images: Tensor) -> Tensor:
        everywhere = images.nan_to_num(0.0).sum((1, 2, 3), keepdim=True)
        found: Tensor = layer(images) + part * (everywhere - everywhere.detach())
        return found

    image = noise(1, 3, 24, 24)
    assert (find_crop(leaking, image, (9, 9)) is not None) is on_cpu
    exact = receptive_field._left
    monkeypatch.setattr(receptive_field, "_left", lambda g: exact(g.to("meta")))
    assert (find_crop(leaking, image, (9, 9)) is not None) is elsewhere
