"""Maps, photos and channels as pictures that lie inside a page."""

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from attribution.plots.pixels import Pixels
from attribution.plots.scales import Scale

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST = 448
"""Pixels along the longer side; what is larger is shrunk by means, so that a page stays small."""

CHANNELS = "viridis"
"""Colours of channels, as in `plots.activation_figure`."""

_QUALITY, _DPI = 85, 110
_STOPS = 33
_CLEAR = 255


def photo(pixels: Pixels) -> str:
    """Colours (H, W, 3) in [0, 1] as the address of a JPEG."""
    return _address("jpeg", _bytes(pixels), quality=_QUALITY)


def pattern(pixels: Pixels) -> str:
    """What a technique drew, (H, W, 3) or (H, W) in [0, 1], likewise."""
    shown = np.repeat(pixels[..., None], 3, axis=-1) if pixels.ndim == 2 else pixels
    return _address("jpeg", _bytes(shown), quality=_QUALITY)


def coloured(values: Pixels, scale: Scale) -> str:
    """A map (h, w) as the address of a PNG whose palette is the colour map: one byte for each place."""
    return _palette(_levels(values, scale.low, scale.high), scale.cmap)


def sprite(channels: Sequence[Pixels], columns: int, gap: int) -> str:
    """Channels (h, w) in rows of one PNG, each from its smallest to its largest value, with room below each.

    Args:
        channels: Of one shape.
        columns: Of the picture; the last row may have fewer.
        gap: Rows of pixels below each channel, which are transparent.
    """
    height, width = channels[0].shape
    lines = -(-len(channels) // columns)
    page = np.full((lines * (height + gap), columns * width), _CLEAR, dtype=np.uint8)
    for index, values in enumerate(channels):
        line, column = divmod(index, columns)
        levels = _levels(values, float(values.min()), float(values.max()), most=_CLEAR - 1)
        top, left = line * (height + gap), column * width
        page[top : top + height, left : left + width] = levels
    return _palette(page, CHANNELS, clear=True)


def figure(drawn: "Figure") -> str:
    """A figure of matplotlib as the address of a PNG."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png", dpi=_DPI, bbox_inches="tight")
    return _data("png", buffer.getvalue())


def shrunk(values: Pixels, most: int = LARGEST) -> Pixels:
    """(h, w) or (h, w, 3) with at most so many pixels along a side, each the mean of those that it stands for."""
    height, width = values.shape[:2]
    if max(height, width) <= most:
        return values
    size = (max(1, round(width * most / max(height, width))), max(1, round(height * most / max(height, width))))
    planes = values[..., None] if values.ndim == 2 else values
    small = [
        np.asarray(Image.fromarray(plane.astype(np.float32)).resize(size, Image.Resampling.BOX), dtype=np.float64)
        for plane in np.moveaxis(planes, -1, 0)
    ]
    return small[0] if values.ndim == 2 else np.stack(small, axis=-1)


def ramp(cmap: str) -> list[str]:
    """Colours of a colour bar from its lower to its upper end, as a style sheet writes them."""
    colours = Scale(cmap, 0.0, 1.0).colours(np.linspace(0.0, 1.0, _STOPS)[None])[0]
    return ["#{:02x}{:02x}{:02x}".format(*colour) for colour in _bytes(colours).tolist()]


def _levels(values: Pixels, low: float, high: float, most: int = 255) -> npt.NDArray[np.uint8]:
    share = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return np.asarray((np.clip(share, 0, 1) * most).round().astype(np.uint8))


def _palette(levels: npt.NDArray[np.uint8], cmap: str, *, clear: bool = False) -> str:
    shades = _CLEAR if clear else 256
    colours = Scale(cmap, 0.0, 1.0).colours(np.linspace(0.0, 1.0, shades)[None])[0]
    image = Image.fromarray(levels)
    image.putpalette(_bytes(colours).tobytes() + b"\0\0\0" * clear)
    return _address("png", image, optimize=True, **({"transparency": _CLEAR} if clear else {}))


def _bytes(pixels: Pixels) -> npt.NDArray[np.uint8]:
    return np.asarray((np.clip(pixels, 0, 1) * 255).round().astype(np.uint8))


def _address(form: str, picture: Any, **options: Any) -> str:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return _data(form, buffer.getvalue())


def _data(form: str, content: bytes) -> str:
    return f"data:image/{form};base64,{base64.b64encode(content).decode()}"
