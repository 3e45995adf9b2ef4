"""What a user gives as the picture that was explained, as colours in [0, 1]."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from attribution.errors import InputError
from attribution.images.colours import rgb
from attribution.plots.pixels import Pixels

if TYPE_CHECKING:
    from PIL.Image import Image

Picture: TypeAlias = "npt.NDArray[Any] | Tensor | Image | Sequence[Any]"
"""Pictures of one or several images; see `pictures`."""

Bands: TypeAlias = int | Sequence[int] | None
"""Which channels are shown: three as red, green and blue, or one as grey."""

_WHITE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}


def pictures(
    image: Picture,
    count: int,
    *,
    mean: object = None,
    std: object = None,
    bands: Bands = None,
) -> list[Pixels]:
    """The pictures of ``count`` images, each (H, W, 3) float64 in [0, 1].

    Args:
        image: A PIL image of 8 or 16 bits, or one for each image in a list. An array (H, W), (H, W, C) or
            (N, H, W, C); a tensor (H, W), (C, H, W) or (N, C, H, W), as models take them. Floats in [0, 1], or 8 or 16
            bits without a sign.
        count: How many images there are.
        mean: Per channel, with ``std``: x · std + mean is drawn, clipped to [0, 1], in place of x.
        std: Per channel.
        bands: Which channels are shown, for images with other than one or three of them.

    Raises:
        InputError: A wrong type, shape, range or number.
    """
    if isinstance(image, list | tuple):
        if len(image) != count:
            raise InputError(f"{len(image)} pictures for {count} maps; expected one for each image of the maps")
        return [each for one in image for each in pictures(one, 1, mean=mean, std=std, bands=bands)]
    planes = _planes(image, count)  # (N, H, W, C)
    if mean is not None or std is not None:
        planes = np.clip(_undone(planes, mean, std), 0, 1)
    planes = _coloured(planes, bands)
    if not (planes.min() >= 0 and planes.max() <= 1):  # False for NaN too
        raise InputError(
            f"image lies in [{planes.min():.3g}, {planes.max():.3g}]; expected floats in [0, 1]; of normalised inputs "
            "give mean= and std= of their transform too"
        )
    if len(planes) != count:
        raise InputError(f"{len(planes)} pictures for {count} maps; expected one for each image of the maps")
    return list(planes)


def _planes(image: Any, count: int) -> Pixels:
    if isinstance(image, Tensor):
        if image.ndim not in (2, 3, 4) or not image.numel():
            raise InputError(f"image has shape {tuple(image.shape)}; expected (H, W), (C, H, W) or (N, C, H, W)")
        found = np.asarray(image.detach().cpu().float() if image.is_floating_point() else image.cpu())
        found = found[None] if image.ndim == 2 else found
        found = np.moveaxis(found, -3, -1)
    elif isinstance(image, np.ndarray):
        found = image[..., None] if image.ndim == 2 else image
        if found.ndim not in (3, 4) or not found.size:
            raise InputError(f"image has shape {image.shape}; expected (H, W), (H, W, C) or (N, H, W, C)")
    elif hasattr(image, "convert"):
        found = np.asarray(rgb(image, "the image"))
    else:
        raise InputError(f"image is a {type(image).__name__}; expected an array, a tensor or a PIL image")
    if not np.issubdtype(found.dtype, np.floating):
        white = _WHITE.get(found.dtype)
        if white is None:
            raise InputError(f"image has dtype {found.dtype}; expected floats in [0, 1], uint8 or uint16")
        found = found / white
    planes: Pixels = found.astype(np.float64)
    return planes.reshape(-1, *planes.shape[-3:])


def _undone(planes: Pixels, mean: object, std: object) -> Pixels:
    """X · std + mean."""
    channels = planes.shape[-1]
    sides: list[Pixels] = []
    for name, value in (("mean", mean), ("std", std)):
        try:
            side = np.asarray(value, dtype=np.float64).reshape(-1)
        except (TypeError, ValueError):
            side = np.empty(0)
        if len(side) not in (1, channels) or not np.isfinite(side).all():
            raise InputError(f"{name} is {value!r}; expected a number for each of {channels} channels, with the other")
        sides.append(side)
    undone: Pixels = planes * sides[1] + sides[0]
    return undone


def _coloured(planes: Pixels, bands: Bands) -> Pixels:
    """(N, H, W, 3)."""
    channels = planes.shape[-1]
    if bands is None:
        if channels not in (1, 3):
            raise InputError(
                f"image has {channels} channels; say which are shown: bands=(r, g, b), counted from 0, or bands=k for "
                "one of them in grey"
            )
        shown = planes
    else:
        several = [bands] if isinstance(bands, int) else list(bands)
        if len(several) not in (1, 3) or any(
            not isinstance(band, int | np.integer) or not 0 <= band < channels for band in several
        ):
            raise InputError(f"bands is {bands!r}; expected one or three channels of 0 to {channels - 1}")
        shown = planes[..., several]
    return np.repeat(shown, 3, axis=-1) if shown.shape[-1] == 1 else shown
