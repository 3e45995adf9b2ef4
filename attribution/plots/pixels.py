"""Maps and pictures as arrays of colours."""

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from attribution.errors import InputError, NonFiniteError, nearest
from attribution.images.colours import rgb

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels: TypeAlias = npt.NDArray[np.float64]
Picture: TypeAlias = "npt.NDArray[Any] | Image"


def normalise(map: Tensor, *, signed: bool) -> Tensor:
    """Scales a map for the eye.

    ``map / max|map|`` in [-1, 1] if ``signed``, else ``max(map, 0) / max(map)`` in [0, 1]; a map with nothing
    to show (all zero, or nothing positive while not signed) gives zeros.

    Args:
        map: any shape, at least one value.
        signed: keep negative values.

    Raises:
        InputError: the map is empty.
        NonFiniteError: NaN or infinity in the map.
    """
    values = numeric(map)
    values = values if signed else values.clamp(min=0)
    largest = values.abs().max()
    return values / largest if largest > 0 else torch.zeros_like(values)


def overlay(image: Picture, map: Tensor, *, alpha: float = 0.45, cmap: str = "jet") -> Pixels:
    """A map laid over a picture as colour: ``(1 - alpha) · image + alpha · cmap(map / max(map))``.

    Args:
        image: (H, W, 3) float in [0, 1], or a PIL image.
        map: (h, w), non-negative (negative values count as 0); scaled by its own maximum, then resized to
            (H, W) bilinearly (``align_corners=False``).
        alpha: share of the colour, in [0, 1].
        cmap: name of a matplotlib colour map.

    Returns:
        (H, W, 3) float64 in [0, 1].

    Raises:
        InputError: a wrong shape, range, alpha or colour map.
        NonFiniteError: NaN or infinity in the map.
    """
    from matplotlib import colormaps

    if not 0 <= alpha <= 1:
        raise InputError(f"alpha is {alpha}; expected a number from 0 (picture only) to 1 (colour only)")
    if cmap not in colormaps:
        raise InputError(f"matplotlib has no colour map {cmap!r}{nearest(cmap, colormaps)}")
    if map.ndim != 2:
        raise InputError(f"the map has shape {tuple(map.shape)}; expected (h, w) of one image and target")
    (picture,) = pictures(image, 1)
    heights = resized(array(normalise(map, signed=False)), picture)
    colour: Pixels = np.asarray(colormaps[cmap](heights))[..., :3]
    return (1 - alpha) * picture + alpha * colour


def signed_overlay(image: Picture, map: Tensor) -> Pixels:
    """A signed map laid over a picture: red for positive and blue for negative values, dark where the picture is.

    Args:
        image: (H, W, 3) float in [0, 1], or a PIL image.
        map: (h, w), scaled by its largest |value|, then resized to (H, W) bilinearly.

    Returns:
        (H, W, 3) float64 in [0, 1].

    Raises:
        InputError: a wrong shape or range.
        NonFiniteError: NaN or infinity in the map.
    """
    from matplotlib import colormaps

    if map.ndim != 2:
        raise InputError(f"the map has shape {tuple(map.shape)}; expected (h, w) of one image and target")
    (picture,) = pictures(image, 1)
    values = resized(array(normalise(map, signed=True)), picture)
    return shaded(np.asarray(colormaps["RdBu_r"](0.5 + 0.5 * values))[..., :3], picture)


def numeric(map: Tensor) -> Tensor:
    """The values of a map as finite floating point numbers, detached."""
    values = map.detach()
    if not values.numel():
        raise InputError(f"a map of shape {tuple(map.shape)} is empty; expected at least one value to draw")
    if not values.is_floating_point():
        values = values.to(torch.float64)
    if not torch.isfinite(values).all():
        raise NonFiniteError("NaN or infinity in the map; only finite maps can be drawn")
    return values


def array(map: Tensor) -> Pixels:
    """The values of a finite map as a float64 array in main memory."""
    return np.asarray(numeric(map).to("cpu", torch.float64).numpy())


def resized(values: Pixels, picture: Pixels) -> Pixels:
    """(h, w) stretched bilinearly to the height and width of ``picture``."""
    stretched = functional.interpolate(
        torch.from_numpy(values)[None, None], picture.shape[:2], mode="bilinear", align_corners=False
    )
    return np.asarray(stretched[0, 0].numpy())


def shaded(colours: Pixels, picture: Pixels) -> Pixels:
    """Colours (H, W, 3) darkened where the picture is dark, so that both can be read."""
    grey = picture @ np.array([0.299, 0.587, 0.114])
    return np.asarray(colours * (0.5 + 0.5 * grey)[..., None])


def pattern(values: Pixels) -> Pixels:
    """(C, H, W) as (H, W, 3) colours or (H, W) grey: ``0.5 + 0.25 · (x - mean(x)) / std(x)``, clipped."""
    shown = values if len(values) == 3 else values.mean(axis=0, keepdims=True)
    spread = shown.std()
    scaled = np.clip(0.5 + 0.25 * (shown - shown.mean()) / (spread if spread > 0 else 1.0), 0, 1)
    return np.moveaxis(scaled, 0, -1) if len(scaled) == 3 else scaled[0]


def strip(values: Pixels) -> Pixels:
    """Any activation of one image as rows, one per index of its first axis."""
    return values.reshape(len(values), -1) if values.ndim > 1 else values.reshape(1, -1)


def pictures(image: Picture, count: int) -> list[Pixels]:
    """The pictures of ``count`` images, each (H, W, 3) float64 in [0, 1].

    Raises:
        InputError: a wrong type, shape, range or number.
    """
    if not isinstance(image, np.ndarray):
        if not hasattr(image, "convert"):
            raise InputError(f"image is a {type(image).__name__}; expected a numpy array or a PIL image")
        image = np.asarray(rgb(image, "the image"), dtype=np.float64) / 255
    if image.ndim not in (3, 4) or image.shape[-1] != 3 or not image.size:
        raise InputError(f"image has shape {image.shape}; expected (H, W, 3) or (N, H, W, 3)")
    if not np.issubdtype(image.dtype, np.floating):
        white = np.iinfo(image.dtype).max if image.dtype.kind == "u" else "its white"
        raise InputError(f"image has dtype {image.dtype}; expected float in [0, 1], such as image / {white}")
    if not (image.min() >= 0 and image.max() <= 1):  # False for NaN too
        raise InputError(f"image lies in [{image.min():.3g}, {image.max():.3g}]; expected float in [0, 1]")
    found = list(image.astype(np.float64).reshape(-1, *image.shape[-3:]))
    if len(found) != count:
        raise InputError(f"{len(found)} pictures for {count} maps; expected one for each image of the maps")
    return found
