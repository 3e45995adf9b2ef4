"""Heatmaps beside and over what was explained."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from attribution import numbers
from attribution.errors import InputError
from attribution.plots.backdrops import Bands, Picture, pictures
from attribution.plots.panels import Panel
from attribution.plots.pixels import Pixels, array, resized, shaded
from attribution.plots.scales import Limits, Scale, said, scales
from attribution.plots.sheet import Aspect, draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TARGETS, SLICES, COLUMNS = 40, 5, 6
"""So many targets, and slices of a volume, are drawn at most; so many panels in a line."""


def overlay(
    image: Picture,
    map: Tensor,
    *,
    alpha: float = 0.45,
    cmap: str | None = None,
    scale: Limits = "each",
    zero: bool = True,
) -> Pixels:
    """A map laid over a picture as colour: ``(1 - alpha) · image + alpha · cmap(map / max(map))``.

    Args:
        image: Of `plots.pictures`: (H, W, 3) float in [0, 1], a PIL image, a tensor.
        map: (h, w), non-negative (negative values count as 0); resized to (H, W) bilinearly
            (``align_corners=False``).
        alpha: Share of the colour, in [0, 1].
        cmap: Name of a matplotlib colour map.
        scale: (lo, hi) of the colours; by default 0 and the map's maximum.
        zero: Whether 0 means something; else the default is the map's minimum and its maximum.

    Returns:
        (H, W, 3) float64 in [0, 1].

    Raises:
        InputError: A wrong shape, range, alpha or colour map.
        NonFiniteError: NaN or infinity in the map.
    """
    if map.ndim != 2:
        raise InputError(f"the map has shape {tuple(map.shape)}; expected (h, w) of one image and target")
    (picture,) = pictures(image, 1)
    values = array(map)
    (found,) = scales([values], signed=False, zero=zero, limits=scale, cmap=cmap)
    return _blended(picture, values, found, _share(alpha))


def signed_overlay(image: Picture, map: Tensor, *, cmap: str | None = None, scale: Limits = "each") -> Pixels:
    """A signed map laid over a picture: red for positive and blue for negative values, dark where the picture is.

    Args:
        image: Of `plots.pictures`.
        map: (h, w), resized to (H, W) bilinearly.
        cmap: Name of a matplotlib colour map.
        scale: (lo, hi) of the colours; by default symmetric about 0, to the largest |value|.

    Returns:
        (H, W, 3) float64 in [0, 1].

    Raises:
        InputError: A wrong shape or range.
        NonFiniteError: NaN or infinity in the map.
    """
    if map.ndim != 2:
        raise InputError(f"the map has shape {tuple(map.shape)}; expected (h, w) of one image and target")
    (picture,) = pictures(image, 1)
    values = array(map)
    (found,) = scales([values], signed=True, limits=scale, cmap=cmap)
    return shaded(found.colours(resized(values, picture)), picture)


def heatmap_figure(
    maps: Mapping[str, Tensor],
    *,
    image: "Picture | None" = None,
    signed: bool = False,
    zero: bool = True,
    titles: Sequence[str] = (),
    title: str = "",
    unit: str = "",
    scale: Limits = "each",
    cmap: str | None = None,
    alpha: float = 0.45,
    columns: int = COLUMNS,
    size: float = 2.2,
    aspect: Aspect = None,
    mean: object = None,
    std: object = None,
    bands: Bands = None,
) -> "Figure":
    """Heatmaps with their colour bars, beside and over the pictures that they explain.

    With a picture and one target there are three panels: the picture, the map on its own grid, and the map over the
    picture; with several targets the map over the picture alone for each. Series are curves, volumes a few slices.

    Args:
        maps: Layer or ``"input"`` → (N, T, h, w); series (N, T, L), volumes (N, T, D, h, w), or (N, T).
        image: What the model saw; see `plots.pictures`. Beside series and volumes it is left out.
        signed: Whether negative values mean something. They are drawn symmetric about 0 then, over a grey copy of the
            picture; else negative values have the colour of 0.
        zero: Whether 0 means something; if not, colours begin at the smallest value and end at the largest.
        titles: Of the targets: T, the same for all images, or N·T, image by image.
        title: Of the whole figure.
        unit: Of the values, at the colour bar.
        scale: ``"each"``: every map from 0 to its own maximum · ``"shared"``: one scale for all maps of the figure ·
            (lo, hi).
        cmap: A colour map of matplotlib; ``None``: inferno, or red to blue where maps are signed.
        alpha: Share of the colour over the picture, in [0, 1]; signed maps are shaded by the picture instead.
        columns: Panels in a line at most.
        size: Width of a panel, in inches.
        aspect: Height by width of a panel, or ``"equal"`` for square pixels; see `sheet.draw`.
        mean: Per channel, with ``std``, of the transform that made ``image``.
        std: Per channel.
        bands: Which channels of ``image`` are shown.

    Raises:
        InputError: No maps, a wrong shape, or a number of pictures or titles that does not fit, or an option of another
            kind.
        NonFiniteError: NaN or infinity in a map.
    """
    count, targets = counted(maps)
    if len(titles) not in (0, targets, count * targets):
        raise InputError(f"{len(titles)} titles for {count} images × {targets} targets; expected one each")
    alpha, columns, size = _share(alpha), _whole(columns), _inches(size)
    names = list(titles) or [f"target {t}" if targets > 1 else "" for t in range(targets)]
    flat = all(map.ndim == 4 for map in maps.values())
    shown = None if image is None or not flat else pictures(image, count, mean=mean, std=std, bands=bands)
    drawn = min(targets, TARGETS)
    keys = [(n, key, t) for n in range(count) for key in maps for t in range(drawn)]
    values = [array(maps[key][n, t]) for n, key, t in keys]
    found = scales(values, signed=signed, zero=zero, limits=scale, cmap=cmap)
    blocks: dict[tuple[int, str], list[Panel]] = {}
    for (n, key, t), each, colours in zip(keys, values, found, strict=True):
        parts = ["" if key == "input" else key, names[(n * targets + t) % len(names)], said(each)]
        backdrop = None if shown is None else shown[n]
        told = " · ".join(filter(None, parts)) or ("map" if backdrop is None else "overlay")
        block = blocks.setdefault((n, key), [])
        if backdrop is not None and not block:
            block.append(Panel(pixels=backdrop, title=f"image {n}" if count > 1 else "image"))
        if backdrop is None or targets == 1:
            block += bare(each, colours, told if backdrop is None else "map", unit, bar=backdrop is None)
        if backdrop is not None:
            block.append(over(backdrop, each, colours, told, unit, alpha, signed))
    if drawn < targets:
        title = f"{title} (the first {drawn} of {targets} targets)".strip()
    return draw(_laid(list(blocks.values()), columns), width=size, title=title, aspect=aspect)


def counted(maps: Mapping[str, Tensor]) -> tuple[int, int]:
    """(N, T) of all maps.

    Raises:
        InputError: There are none, or they differ.
    """
    if not maps:
        raise InputError("no maps to draw; expected at least one layer")
    for key, map in maps.items():
        if not 2 <= map.ndim <= 5 or not map.numel():
            raise InputError(
                f"the map of {key!r} has shape {tuple(map.shape)}; expected (N, T, h, w), or (N, T, L), (N, T, D, h, w)"
            )
    first = next(iter(maps.values())).shape[:2]
    if any(map.shape[:2] != first for map in maps.values()):
        raise InputError("the maps differ in images or targets; expected (N, T, h, w) with one N and one T")
    return first[0], first[1]


def bare(values: Pixels, scale: Scale, title: str, unit: str, *, bar: bool) -> list[Panel]:
    """A map on its own grid: a plane, a curve, or slices of a volume."""
    limits = scale.low, scale.high
    if values.ndim < 2:
        bent = min(limits[0], float(values.min())), max(limits[1], float(values.max()))
        return [Panel(pixels=values.reshape(1, -1), title=title, limits=bent, unit=unit, curve=True)]
    told = "{:.3g}" if bar else ""
    if values.ndim == 2:
        return [Panel(pixels=values, title=title, cmap=scale.cmap, limits=limits, bar=told, unit=unit)]
    depth = len(values)
    picked = sorted({round(k) for k in np.linspace(0, depth - 1, min(SLICES, depth))})
    bars = [told if k == picked[-1] else "" for k in picked]  # all slices have one scale
    return [
        Panel(pixels=values[k], title=f"{title} · slice {k}", cmap=scale.cmap, limits=limits, bar=each, unit=unit)
        for k, each in zip(picked, bars, strict=True)
    ]


def over(picture: Pixels, values: Pixels, scale: Scale, title: str, unit: str, alpha: float, signed: bool) -> Panel:
    """A map over its picture: mixed with it, or shaded by it where the map is signed, so that hues stay readable."""
    limits = scale.low, scale.high
    if signed:
        return Panel(
            pixels=values, title=title, cmap=scale.cmap, limits=limits, backdrop=picture, bar="{:.3g}", unit=unit
        )
    mixed = _blended(picture, values, scale, alpha)
    return Panel(pixels=mixed, title=title, cmap=scale.cmap, limits=limits, bar="{:.3g}", unit=unit)


def _blended(picture: Pixels, values: Pixels, scale: Scale, alpha: float) -> Pixels:
    return (1 - alpha) * picture + alpha * scale.colours(resized(values, picture))


def _laid(blocks: list[list[Panel]], columns: int) -> list[list[Panel]]:
    """Lines of whole blocks, so that a picture stays with its maps; a block of more panels has lines of its own."""
    lines: list[list[Panel]] = []
    for block in blocks:
        if lines and len(lines[-1]) + len(block) <= columns:
            lines[-1] += block
        else:
            lines += [block[i : i + columns] for i in range(0, len(block), columns)]
    return lines


def _share(alpha: float) -> float:
    number = numbers.real(alpha)
    if number is None or not 0 <= number <= 1:
        raise InputError(f"alpha is {alpha}; expected a number from 0 (picture only) to 1 (colour only)")
    return number


def _whole(columns: int) -> int:
    number = numbers.integer(columns)
    if number is None or number < 1:
        raise InputError(f"columns is {columns!r}; expected an int of at least 1")
    return number


def _inches(size: float) -> float:
    number = numbers.real(size)
    if number is None or not 0.2 <= number <= 40:
        raise InputError(f"size is {size!r}; expected the width of a panel in inches, from 0.2 to 40")
    return number
