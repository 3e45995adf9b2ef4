"""Which segment each place of an input belongs to: as given, a grid, or superpixels."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from attribution import numbers
from attribution.errors import InputError
from attribution.running.upload import upload

One = Tensor | int | Literal["slic"] | None

GRID = 8
"""Segments along each place axis where none are given."""

SUPERPIXELS = 50
"""About how many of them ``"slic"`` makes of an image."""

_FORMS = (
    "give a map of integers (*places), or (N, *places) with one map for each example, 'slic', how many along each "
    "place axis, or None for 8"
)


def checked(owner: str, value: object) -> One:
    """Integers on the host, a number along each axis, ``"slic"``, or ``None``.

    Raises:
        InputError: It is none of these.
    """
    if value is None:
        return None
    if isinstance(value, str):
        if value != "slic":
            raise InputError(f"{owner}.segments is {value!r}; {_FORMS}")
        return "slic"
    if (number := numbers.integer(value)) is not None:
        if number < 1:
            raise InputError(f"{owner}.segments is {value!r}; {_FORMS}")
        return number
    try:
        found = torch.as_tensor(value if isinstance(value, Tensor) else np.asarray(value), device="cpu").detach()
        fits = found.ndim > 0 and found.numel() > 0 and not (found.is_floating_point() or found.is_complex())
        fits = fits and found.dtype != torch.bool
        found = found.long().clone() if fits else found
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{owner}.segments is no map of integers ({error}); {_FORMS}") from error
    if not fits:
        raise InputError(
            f"{owner}.segments of shape {tuple(found.shape)}, {found.dtype}, is no map of integers; {_FORMS}"
        )
    return found


def check(owner: str, segments: One, name: str, shape: torch.Size, places: tuple[int, ...]) -> None:
    """Refuse segments that do not fit an input of this shape.

    Raises:
        InputError: Their map has other places, or ``"slic"`` is asked of what is no image, or cannot be had.
    """
    if isinstance(segments, Tensor):
        given = tuple(segments.shape)
        if given != places and given not in ((1, *places), (shape[0], *places)):
            raise InputError(f"{owner}.segments has shape {given}, and {name!r} the places {places}; {_FORMS}")
    elif segments == "slic":
        if len(shape) != 4:
            raise InputError(
                f"{owner}.segments='slic' is for images (N, C, H, W), and {name!r} is {tuple(shape)}; {_FORMS}"
            )
        try:
            import skimage.segmentation  # noqa: F401  # an extra
        except ImportError as error:
            raise InputError(
                f"{owner}.segments='slic' needs scikit-image: pip install 'torch-attribution[demo]'; or {_FORMS}"
            ) from error


def labelled(segments: One, inputs: Tensor, places: tuple[int, ...]) -> Tensor:
    """(1 or N, *places), numbers from 0 on without gaps in each map, in the order of the integers that were given."""
    if segments is None:
        found = _grid(places, max(places) if inputs.ndim == 2 else GRID)
    elif isinstance(segments, int):
        found = _grid(places, segments)
    elif isinstance(segments, Tensor):
        found = segments if segments.ndim > len(places) else segments[None]
    else:
        found = torch.stack([_superpixels(image) for image in inputs.detach().cpu()])
    maps = [torch.unique(each, return_inverse=True)[1].view(places) for each in found]
    return upload(torch.stack(maps), inputs.device)


def _grid(places: tuple[int, ...], most: int) -> Tensor:
    """So many along each axis, or as many as it has places; row by row."""
    found = torch.zeros((), dtype=torch.int64, device="cpu")
    for size in places:
        count = min(most, size)
        along = torch.arange(size, device="cpu") * count // size
        found = found[..., None] * count + along
    return found[None]


def _superpixels(image: Tensor) -> Tensor:
    """(H, W) of (C, H, W), whose values are scaled to 0…1 first, since a transform may have shifted them."""
    from skimage.segmentation import slic

    low, high = image.double().min(), image.double().max()
    scaled = ((image.double() - low) / (high - low).clamp(min=1e-12)).movedim(0, -1).numpy()
    return torch.from_numpy(slic(scaled, n_segments=SUPERPIXELS, compactness=10, start_label=0, channel_axis=-1)).long()


def boxes(labels: Tensor) -> tuple[tuple[tuple[int, int], ...], ...]:
    """For each axis of one map, where each segment begins and ends."""
    host, count = labels.cpu().numpy(), int(labels.max()) + 1
    found = []
    for axis in range(host.ndim):
        at = np.arange(host.shape[axis]).reshape([-1 if axis == a else 1 for a in range(host.ndim)])
        at = np.broadcast_to(at, host.shape).reshape(-1)
        low, high = np.full(count, host.shape[axis]), np.zeros(count, np.int64)
        np.minimum.at(low, host.reshape(-1), at)
        np.maximum.at(high, host.reshape(-1), at + 1)
        found.append(tuple(zip(low.tolist(), high.tolist(), strict=True)))
    return tuple(found)
