"""One panel of a figure: a picture, a map in colours with its bar, or a curve."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from attribution.plots.pixels import Pixels, resized, shaded

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LETTERS = 7.0
"""Size of titles, in points."""

LOWEST, HIGHEST = 0.25, 2.0
"""Height by width of a panel beyond which a map is stretched, since nobody could read it."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """``pixels`` (h, w) through a colour map, (h, w, 3) colours in [0, 1], or one row of values as a curve.

    Attributes:
        pixels: See above.
        title: Above the panel.
        cmap: A colour map of matplotlib.
        limits: The values at its ends; ``None``: the smallest and the largest.
        backdrop: A picture that shades the colours.
        bar: Formats the numbers at a colour bar; empty: no bar.
        unit: Beside the bar, or beside a curve.
        wide: Stretched over the whole line.
        curve: Whether the values are drawn as a curve.
    """

    pixels: Pixels
    title: str
    cmap: str = "viridis"
    limits: tuple[float, float] | None = None
    backdrop: Pixels | None = None
    bar: str = ""
    unit: str = ""
    wide: bool = False
    curve: bool = False

    @property
    def ratio(self) -> float:
        """Height by width."""
        height, width = self.pixels.shape[:2]
        return 0.5 if self.curve else height / width


def paint(axes: "Axes", panel: Panel, width: float, aspect: Literal["equal", "auto"]) -> None:
    """Draw a panel that is so many inches wide."""
    longest = max(map(len, panel.title.split("\n")))
    size = min(LETTERS, max(4.5, width * 72 / (0.56 * max(longest, 1))))
    axes.set_title(_shortened(panel.title, width * 72 / (0.56 * size)), size=size, pad=3, parse_math=False)
    if panel.curve:
        _curve(axes, panel)
        return
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    axes.set_axis_off()
    low, high = panel.limits or (float(panel.pixels.min()), float(panel.pixels.max()))
    scale = ScalarMappable(Normalize(low, high), panel.cmap)
    pixels = panel.pixels
    if panel.backdrop is not None:
        pixels = shaded(scale.to_rgba(resized(pixels, panel.backdrop))[..., :3], panel.backdrop)
    drawn = axes.imshow(pixels, aspect="auto" if panel.wide else aspect, interpolation="nearest")
    drawn.set(norm=scale.norm, cmap=scale.cmap)
    if panel.bar:
        ticks = sorted({low, (low + high) / 2, high})
        bar = axes.figure.colorbar(scale, cax=axes.inset_axes((1.03, 0.0, 0.05, 1.0)), ticks=ticks)
        bar.set_ticklabels([panel.bar.format(tick) for tick in ticks])
        bar.ax.tick_params(labelsize=LETTERS - 1, length=2, pad=1)
        if panel.unit:
            bar.set_label(panel.unit, size=LETTERS - 1.5, labelpad=2)


def _curve(axes: "Axes", panel: Panel) -> None:
    """Values over their places, with a line at 0."""
    (values,) = panel.pixels
    axes.axhline(0.0, color="0.7", linewidth=0.6)
    axes.plot(np.arange(len(values)), values, color="#20639b", linewidth=0.9, drawstyle="steps-mid")
    axes.fill_between(np.arange(len(values)), values, step="mid", color="#20639b", alpha=0.25, linewidth=0)
    if panel.limits is not None:
        low, high = panel.limits
        axes.set_ylim(low - 0.03 * (high - low), high + 0.03 * (high - low))
    axes.set_xlim(-0.5, len(values) - 0.5)
    axes.tick_params(labelsize=LETTERS - 2, length=2, pad=1)
    if panel.unit:
        axes.set_ylabel(panel.unit, size=LETTERS - 1.5, labelpad=1)


def _shortened(title: str, room: float) -> str:
    """Each line cut in the middle to at most ``room`` letters."""
    keep = max(int(room), 8)
    lines = title.split("\n")
    return "\n".join(t if len(t) <= keep else f"{t[: keep // 2]}…{t[len(t) - keep // 2 + 1 :]}" for t in lines)
