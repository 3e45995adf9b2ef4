"""Colour modes and bit depths of files, held to pixels that are worked out by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attribution.images import photo
from attribution.runs import of_folder
from tests.runs.data import paint, to_tensor


def test_twelve_bits_in_sixteen_are_noticed(tmp_path: Path) -> None:
    for highest, noticed in ((4095, True), (300, True), (255, False), (4096, False), (65535, False)):
        Image.fromarray(np.array([[0, highest]], dtype=np.uint16)).save(tmp_path / "a.png")
        notes = photo(tmp_path / "a.png").notes
        assert any("12 bits" in note for note in notes) == noticed, highest
    paint(tmp_path / "b.png", 0)
    assert photo(tmp_path / "b.png").notes == ()
    frames = [Image.new("L", (4, 4), shade) for shade in (0, 90)]
    frames[0].save(tmp_path / "c.gif", save_all=True, append_images=frames[1:])
    assert photo(tmp_path / "c.gif").notes == ("it has several frames, of which the first was read",)


# The pixels (0.1, 0.5, 0.9) of every colour mode, by hand: what a viewer shows over white.
GREY, COLOUR = np.array([[26, 128, 230]], dtype=np.uint8), np.array([[[200, 30, 60], [0, 0, 0]]], dtype=np.uint8)
MODES: dict[str, tuple[Image.Image, list[list[int]]]] = {
    "1": (Image.fromarray(GREY).point(lambda v: 255 * (v > 100)).convert("1"), [[0] * 3, [255] * 3, [255] * 3]),
    "L": (Image.fromarray(GREY), [[26] * 3, [128] * 3, [230] * 3]),
    "LA": (Image.fromarray(np.array([[[26, 255], [26, 0]]], dtype=np.uint8)), [[26] * 3, [255] * 3]),
    "RGB": (Image.fromarray(COLOUR), [[200, 30, 60], [0, 0, 0]]),
    "RGBA": (
        Image.fromarray(np.array([[[200, 30, 60, 255], [200, 30, 60, 0]]], dtype=np.uint8)),
        [[200, 30, 60], [255] * 3],
    ),
    "P": (Image.fromarray(COLOUR).quantize(2), [[200, 30, 60], [0, 0, 0]]),
    "I;16": (Image.fromarray(np.array([[0, 32896, 65535]], dtype=np.uint16)), [[0] * 3, [128] * 3, [255] * 3]),
    "CMYK": (Image.fromarray(np.array([[[0, 255, 255, 0], [0, 0, 0, 255]]], np.uint8), "CMYK"), [[255, 0, 0], [0] * 3]),
}
FORMATS = {
    "png": {"CMYK"},
    "tif": set[str](),
    "webp": {"1", "L", "LA", "P", "I;16", "CMYK"},
    "bmp": {"LA", "RGBA", "I;16", "CMYK"},
}
GOLDEN = [(mode, suffix) for mode in MODES for suffix, without in FORMATS.items() if mode not in without]


@pytest.mark.parametrize(("mode", "suffix"), GOLDEN)
def test_golden_pixels(tmp_path: Path, mode: str, suffix: str) -> None:
    image, expected = MODES[mode]
    options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    image.save(tmp_path / f"a.{suffix}", **options)
    found = of_folder(tmp_path, to_tensor)[0].inputs
    assert (found * 255).round().int().movedim(0, -1)[0].tolist() == expected
