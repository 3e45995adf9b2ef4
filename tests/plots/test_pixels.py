"""Scaling to colours, to the pixel."""

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from attribution import plots
from attribution.errors import InputError, NonFiniteError

INFERNO = matplotlib.colormaps["inferno"]


def picture(height: int = 17, width: int = 23) -> np.ndarray:
    return np.random.default_rng(0).random((height, width, 3))


def test_normalise_is_a_division_by_the_largest() -> None:
    map = torch.tensor([[-4.0, 2.0], [0.0, 1.0]])
    assert plots.normalise(map, signed=True).tolist() == [[-1.0, 0.5], [0.0, 0.25]]
    assert plots.normalise(map, signed=False).tolist() == [[0.0, 1.0], [0.0, 0.5]]


@pytest.mark.parametrize("signed", [True, False])
def test_normalise_of_a_zero_map_is_zero(signed: bool) -> None:
    assert plots.normalise(torch.zeros(2, 3), signed=signed).tolist() == [[0.0] * 3] * 2


def test_normalise_of_a_negative_map_keeps_nothing_unless_signed() -> None:
    assert plots.normalise(-torch.ones(2), signed=False).tolist() == [0.0, 0.0]
    assert plots.normalise(-torch.ones(2), signed=True).tolist() == [-1.0, -1.0]


def test_overlay_is_055_picture_and_045_colour_to_the_pixel() -> None:
    image, map = picture(2, 3), torch.tensor([[0.0, 1.0, 2.0], [4.0, 3.0, 0.5]])
    expected = np.stack(
        [[0.55 * image[y, x] + 0.45 * np.array(INFERNO(float(map[y, x]) / 4)[:3]) for x in range(3)] for y in range(2)]
    )
    np.testing.assert_allclose(plots.overlay(image, map), expected, rtol=0, atol=1e-12)


def test_overlay_resizes_bilinearly_without_aligned_corners() -> None:
    # 1 × 2 → 1 × 4: samples at -0.25, 0.25, 0.75, 1.25 of the old pixels, clamped at the border
    result = plots.overlay(np.zeros((1, 4, 3)), torch.tensor([[0.0, 8.0]]), alpha=1.0)
    np.testing.assert_allclose(result[0], [INFERNO(v)[:3] for v in (0.0, 0.25, 0.75, 1.0)], atol=1e-12)


def test_overlay_tells_height_from_width_and_up_from_down() -> None:
    map = torch.zeros(2, 3)
    map[0, 2] = 1.0
    result = plots.overlay(np.zeros((2, 3, 3)), map, alpha=1.0)
    assert result[0, 2].tolist() == list(INFERNO(1.0)[:3])
    for mutant in (map.T, map.flip(0), map.flip(1)):
        assert not np.allclose(plots.overlay(np.zeros((2, 3, 3)), mutant.contiguous(), alpha=1.0), result)


@pytest.mark.parametrize(("value", "level"), [(0.0, 0.0), (3.0, 1.0), (-1.0, 0.0)])
def test_overlay_of_a_constant_map_is_finite(value: float, level: float) -> None:
    result = plots.overlay(np.full((2, 2, 3), 0.5), torch.full((2, 2), value))
    np.testing.assert_allclose(result[0, 0], 0.275 + 0.45 * np.array(INFERNO(level)[:3]), atol=1e-12)


def test_overlay_takes_a_pil_image_and_other_colour_maps() -> None:
    image = Image.fromarray(np.full((2, 2, 3), 51, dtype=np.uint8))
    result = plots.overlay(image, torch.ones(2, 2), alpha=0.0, cmap="viridis")
    np.testing.assert_allclose(result, 0.2)


@pytest.mark.parametrize(
    ("image", "map", "options", "words"),
    [
        (picture() * 255, torch.ones(2, 2), {}, "expected floats in [0, 1]"),
        (np.full((2, 2, 3), np.nan), torch.ones(2, 2), {}, "expected floats in [0, 1]"),
        ((picture() * 255).astype(np.int32), torch.ones(2, 2), {}, "dtype int32; expected floats"),
        (picture()[0, 0], torch.ones(2, 2), {}, "expected (H, W), (H, W, C)"),
        (np.dstack([picture()] * 2), torch.ones(2, 2), {}, "image has 6 channels; say which are shown"),
        (np.stack([picture()] * 2), torch.ones(2, 2), {}, "2 pictures for 1 maps"),
        ("coffee.jpg", torch.ones(2, 2), {}, "image is a str"),
        (picture(), torch.ones(1, 2, 2), {}, "expected (h, w)"),
        (picture(), torch.ones(0, 2), {}, "empty"),
        (picture(), torch.ones(2, 2), {"alpha": 1.5}, "alpha is 1.5"),
        (picture(), torch.ones(2, 2), {"cmap": "viridsi"}, "nearest: 'viridis'"),
    ],
)
def test_overlay_says_what_is_wrong(image: object, map: Tensor, options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError) as caught:
        plots.overlay(image, map, **options)  # type: ignore[arg-type]
    assert words in str(caught.value)


def test_nan_is_never_drawn() -> None:
    with pytest.raises(NonFiniteError):
        plots.overlay(picture(), torch.tensor([[float("nan")]]))
    with pytest.raises(NonFiniteError):
        plots.activation_figure({"stem": torch.full((1, 1, 2, 2), float("inf"))})
