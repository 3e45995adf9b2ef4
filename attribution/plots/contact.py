"""Many small pictures on one page."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from attribution.errors import InputError
from attribution.plots.pixels import Pixels, array, pattern
from attribution.plots.sheet import empty as blank
from attribution.plots.sheet import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 150  # of `save`: a pixel of the page is a pixel of the file
_GAP = 4
_LABEL = 14  # pixels below each picture
_PAGE = 16 / 10
_WIDEST = 4096


def contact_sheet(
    images: Tensor, *, titles: Sequence[str], empty: Sequence[bool] = (), title: str = "", scaled: bool = True
) -> "Figure":
    """All pictures of a layer on one page of about 16 : 10, each under its own scale with its title below.

    A picture is drawn pixel for pixel, smaller by a whole factor where the page would be wider than 4,096 pixels;
    scaled like those of `image_figure`.

    Args:
        images: (K, C, H, W), in the order of the page: left to right, then down.
        titles: one per picture; short.
        empty: for which a crossed-out place is drawn instead, such as filters that nothing excites.
        title: of the page.
        scaled: each picture by its own spread; if not, they are colours in [0, 1] already.

    Raises:
        InputError: no pictures, or a number of titles that is not that of the pictures.
        NonFiniteError: NaN or infinity in a picture.
    """
    if images.ndim != 4 or not len(images):
        raise InputError(f"pictures of shape {tuple(images.shape)}; expected (K, C, H, W) with at least one")
    if len(titles) != len(images) or len(empty) not in (0, len(images)):
        raise InputError(f"{len(titles)} titles and {len(empty)} marks for {len(images)} pictures; expected one each")
    title, titles = printable(title), [printable(text) for text in titles]
    height, width = images.shape[2:]
    columns = max(1, min(len(images), round(math.sqrt(len(images) * _PAGE * (height + _LABEL) / width))))
    shrink = max(1, math.ceil(columns * (width + _GAP) / _WIDEST))
    drawn = array(images)
    tiles = [_shrunk(pattern(each) if scaled else np.moveaxis(each, 0, -1), shrink) for each in drawn]
    page, places = _page(tiles, columns, list(empty) or [False] * len(tiles))
    head = 40 if title else _GAP
    figure = blank(page.shape[1] / _DPI, (page.shape[0] + head) / _DPI, dpi=_DPI)
    axes = figure.add_axes((0, 0, 1, page.shape[0] / (page.shape[0] + head)))
    axes.set_axis_off()
    axes.imshow(page, interpolation="nearest", aspect="auto", extent=(0, page.shape[1], page.shape[0], 0))
    side = tiles[0].shape[1]
    size = min(5.5, 0.48 * side / max(3, *map(len, titles)) * 72 / _DPI * 3)
    for (top, left), text in zip(places, titles, strict=True):
        below = top + tiles[0].shape[0] + _LABEL / 2
        axes.text(left + side / 2, below, text, ha="center", va="center", size=size, color="0.25", parse_math=False)
    if title:
        fitting = page.shape[1] / (0.6 * len(title)) * 72 / _DPI
        middle = 1 - head / 2 / (page.shape[0] + head)
        figure.text(0.5, middle, title, ha="center", va="center", size=min(10.0, fitting), parse_math=False)
    return figure


def _page(tiles: Sequence[Pixels], columns: int, empty: Sequence[bool]) -> tuple[Pixels, list[tuple[int, int]]]:
    """The tiles on white, and the upper left corner of each."""
    height, width = tiles[0].shape[:2]
    rows = -(-len(tiles) // columns)
    page = np.ones((rows * (height + _LABEL + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3))
    places = []
    for index, (tile, crossed) in enumerate(zip(tiles, empty, strict=True)):
        row, column = divmod(index, columns)
        top, left = row * (height + _LABEL + _GAP) + _GAP, column * (width + _GAP) + _GAP
        drawn = _crossed(height, width) if crossed else tile
        page[top : top + height, left : left + width] = drawn if drawn.ndim == 3 else drawn[..., None]
        places.append((top, left))
    return page, places


def _crossed(height: int, width: int) -> Pixels:
    """Light grey with a cross: nothing to see here."""
    down, right = np.mgrid[0:height, 0:width] / np.array([height - 1 or 1, width - 1 or 1]).reshape(2, 1, 1)
    line = 1.5 / max(height, width)
    cross = np.minimum(np.abs(down - right), np.abs(down + right - 1)) < line
    return np.where(cross, 0.75, 0.93)


def _shrunk(tile: Pixels, factor: int) -> Pixels:
    """Means of squares of ``factor`` pixels."""
    if factor == 1:
        return tile
    height, width = (side // factor for side in tile.shape[:2])
    cut = tile[: height * factor, : width * factor]
    means = cut.reshape(height, factor, width, factor, -1).mean(axis=(1, 3))
    return np.asarray(means if tile.ndim == 3 else means[..., 0])
