"""Pixels, spectra and colours of filter images, against their definitions."""

import pytest
import torch
from torch import nn

from attribution import FilterVisualization, explain
from attribution.techniques.filter_visualization.parametrization import LIMIT, Fourier
from tests.conftest import BACKENDS, noise


@pytest.mark.parametrize("size", [(16, 20), (17, 23), (1, 8)], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("decorrelated", [True, False])
def test_a_spectrum_stands_for_one_image(size: tuple[int, int], channels: int, decorrelated: bool) -> None:
    space = Fourier(size=size, decorrelated=decorrelated, spread=64.0, dtype=torch.float64)
    images = 30 * noise(2, channels, *size, dtype=torch.float64)
    spectrum = space.encode(images)
    assert spectrum.shape[1:] == space.shape((channels, *size))
    assert torch.allclose(space.decode(spectrum), images, rtol=1e-9, atol=1e-9)


def test_plain_colours_are_a_spectrum_for_each_channel() -> None:
    asked = torch.zeros(1, 3, 9, 6, 2, dtype=torch.float64)
    asked[0, 1, 2, 1, 0] = 0.3
    apart, mixed = (
        Fourier(size=(9, 11), decorrelated=flag, spread=2.0, dtype=torch.float64).decode(asked)[0]
        for flag in (False, True)
    )
    assert apart[1].abs().max() > 0.05
    assert apart[[0, 2]].abs().max() == 0
    assert mixed[0].abs().max() > 0.02, "red against blue"
    assert (mixed[0] + mixed[2]).abs().max() < 1e-12


@BACKENDS
@pytest.mark.parametrize("decorrelate", [True, False, None])
def test_decorrelated_pixels_climb_along_the_axes_of_photos(decorrelate: bool | None, backend: str) -> None:
    """One normalised step on a linear layer, by hand: x + spread · M · step · Mᵀw / std(Mᵀw)."""
    model = nn.Conv2d(3, 2, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, -1.0, 0.5], [0.3, 0.1, -2.0]], dtype=torch.float64)[..., None, None])
    net, start = nn.Sequential(model), noise(2, 3, 5, 7, dtype=torch.float64)
    ask = FilterVisualization(
        layer="0", channels=(0, 1), parametrization="pixel", decorrelate=decorrelate, optimizer="normalized", steps=1,
        step_size=0.4, spread=3.0, initial=start, jitter=0, scale=0.0, rotate=0.0,
    )  # fmt: skip
    found = explain(net, None, ask, backend=backend).map
    grey, red_blue, green = torch.tensor([[1.0, 1, 1], [1, 0, -1], [-1, 2, -1]], dtype=torch.float64)
    deviations = (1.0, 0.28, 0.13)
    size = (sum(each**2 for each in deviations) / 3) ** 0.5
    axes = [
        (axis / sum(part**2 for part in axis) ** 0.5) * std / size
        for axis, std in zip((grey, red_blue, green), deviations, strict=True)
    ]
    mixing = torch.stack(axes, dim=1) if decorrelate else torch.eye(3, dtype=torch.float64)
    for row in range(2):
        g = (mixing.T @ model.weight[row, :, 0, 0].detach())[:, None, None].expand(3, 5, 7)
        wanted = start[row] + 3.0 * 0.4 * torch.einsum("dc,chw->dhw", mixing, g / g.std())
        assert (found[row] - wanted).abs().max() < 1e-6


def test_a_random_spectrum_looks_like_a_photo() -> None:
    space = Fourier(size=(96, 128), decorrelated=True, spread=2.0, dtype=torch.float64)
    drawn = 0.1 * noise(24, *space.shape((3, 96, 128)), dtype=torch.float64)
    images = space.decode(drawn)
    assert images.square().mean().sqrt().item() == pytest.approx(0.2, rel=0.15)
    power = torch.fft.rfft2(images).abs().square().mean(dim=(0, 1))
    low, high = power[0, 3], power[0, 24]
    assert (low / high).item() == pytest.approx(64, rel=0.5), "power falls as 1 / frequency²"
    grey = images.mean(dim=1)
    red_blue = (images[:, 0] - images[:, 2]) / 2
    assert grey.std() > 2 * red_blue.std(), "colours vary less than brightness"
    assert space.decode(1e3 * drawn).abs().max() <= 2.0 * LIMIT
