"""Maps and pictures as arrays of colours."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from attribution.errors import InputError, NonFiniteError

Pixels: TypeAlias = npt.NDArray[np.float64]


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
