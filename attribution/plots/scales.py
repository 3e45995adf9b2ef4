"""Which colours stand for which values of a map."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from attribution.errors import InputError, nearest
from attribution.plots.pixels import Pixels

Limits: TypeAlias = str | Sequence[float]
"""``"each"``: every map its own · ``"shared"``: one for all maps of the figure · (lo, hi): these."""

POSITIVE, SIGNED = "inferno", "RdBu_r"
"""Colour maps that colour-blind readers can tell apart; the first one's lightness rises with the value."""


@dataclass(frozen=True)
class Scale:
    """A colour map and the values at its ends."""

    cmap: str
    low: float
    high: float

    def colours(self, values: Pixels) -> Pixels:
        """(h, w) → (h, w, 3) in [0, 1]."""
        from matplotlib import colormaps

        share = np.clip((values - self.low) / (self.high - self.low), 0, 1)
        return np.asarray(colormaps[self.cmap](share))[..., :3]


def scales(
    maps: Sequence[Pixels], *, signed: bool, zero: bool = True, limits: Limits = "each", cmap: str | None = None
) -> list[Scale]:
    """The scale of each map: from 0 to its largest value, or symmetric about 0 where it is signed.

    Args:
        maps: Finite arrays.
        signed: Whether negative values mean something; else they have the colour of 0.
        zero: Whether 0 means something; else colours go from the smallest value to the largest.
        limits: See `Limits`.
        cmap: A colour map of matplotlib; ``None``: `POSITIVE` or `SIGNED`.

    Raises:
        InputError: There are no such limits or colours.
    """
    from matplotlib import colormaps

    if cmap is not None and cmap not in colormaps:
        raise InputError(f"matplotlib has no colour map {cmap!r}{nearest(cmap, colormaps)}")
    name = cmap or (SIGNED if signed else POSITIVE)
    if limits in ("each", "shared") and not (zero or signed):
        ends = [(float(m.min()), float(m.max())) for m in maps]
        if limits == "shared":
            ends = [(min(low for low, _ in ends), max(high for _, high in ends))] * len(maps)
        return [Scale(name, low, high if high > low else low + 1.0) for low, high in ends]
    if limits in ("each", "shared"):
        reach = [float(np.abs(m).max() if signed else m.max()) for m in maps]
        tops = [max(reach)] * len(maps) if limits == "shared" else reach
        return [Scale(name, -top if signed else 0.0, top) for top in (top if top > 0 else 1.0 for top in tops)]
    low, high = _stated(limits)
    return [Scale(name, low, high)] * len(maps)


def said(values: Pixels) -> str:
    """What a map without any change is: where all its colours are one, no reader can see it."""
    low, high = float(values.min()), float(values.max())
    if low != high:
        return ""
    return "zero everywhere" if low == 0 else f"{low:.3g} everywhere"


def _stated(limits: Limits) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in limits)
    except (TypeError, ValueError):
        low = high = 0.0
    if isinstance(limits, str) or not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise InputError(f"scale is {limits!r}; give 'each', 'shared', or (lo, hi) with lo < hi")
    return low, high
