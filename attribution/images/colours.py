"""Pictures of any mode as 8-bit RGB, or refused where it is unknown what is white."""

from typing import TYPE_CHECKING

import numpy as np

from attribution.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_OPAQUE = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr")
_ALPHA = ("LA", "PA", "RGBA")


def rgb(image: "Image.Image", name: str, notes: list[str] | None = None) -> "Image.Image":
    """The image in 8-bit RGB without metadata; 16-bit grey maps 0…65535 to 0…255, transparent pixels lie over white.

    Args:
        image: of any mode.
        name: of the image, for messages.
        notes: takes a line where a 16-bit image may hold fewer bits. It is read as 16 bits all the same, since a photo
            of a dark room looks alike.

    Raises:
        InputError: its pixels have no declared range (modes ``I`` and ``F``), or the mode is of another kind.
    """
    from PIL import Image

    if image.mode in _SIXTEEN_BIT:
        wide = np.asarray(image).astype(np.uint32)
        highest = int(wide.max(initial=0))
        if notes is not None and 255 < highest < 4096:
            notes.append(
                f"its 16-bit values end at {highest}, as those of 12 bits do; it was read as 16 bits and is dark: "
                "scale it to 16 bits if it has 12"
            )
        image = Image.fromarray(((wide + 128) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise InputError(
            f"{name} has mode {image.mode!r}, numbers without a declared range, so it is unknown what is white; "
            "save it with 8 or 16 bits per channel"
        )
    elif image.mode not in (*_OPAQUE, *_ALPHA):
        raise InputError(f"{name} has mode {image.mode!r}; expected {', '.join((*_OPAQUE, *_ALPHA))}; save it as RGB")
    if image.mode in _ALPHA or "transparency" in image.info:
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours)
    coloured = image.convert("RGB")
    coloured.info.clear()
    return coloured
