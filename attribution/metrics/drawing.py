"""The figure of an evaluation: mean curves of removal with bands."""

from typing import TYPE_CHECKING, Any

import numpy as np

from attribution.errors import InputError
from attribution.metrics.statistics import Array, intervals
from attribution.plots.sheet import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from attribution.metrics.table import Table

_POINTS = 33
_GREYS = ("0.15", "0.4", "0.6")
_DASHES = ("--", ":", "-.")


def curves_figure(table: "Table") -> "Figure":
    """A line of two panels per baseline: the most important cells removed first, and the least important ones.

    Raises:
        InputError: There are no curves.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not table.curves:
        raise InputError("there are no curves to draw; evaluate with SRG(), Insertion() or Deletion()")
    baselines = list(dict.fromkeys(row.baseline for row in table.curves))
    figure = Figure(figsize=(9.0, 0.9 + 2.6 * len(baselines)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(baselines), 2, sharex=True, sharey=True, squeeze=False)
    grid = np.linspace(0, max(row.removed for row in table.curves), _POINTS)
    for line, baseline in zip(panels, baselines, strict=True):
        found = _photos(table, baseline, grid)
        for axes, way in zip(line, (0, 1), strict=True):
            for name in table.maps:
                if name in found:
                    _draw(axes, grid, found[name][way], name, table)
            axes.grid(alpha=0.25)
            axes.tick_params(labelsize=8)
        line[0].set_ylabel(printable(f"{baseline}\nscore"), size=9)
    panels[0][0].set_title("most important first (lower is better)", size=9)
    panels[0][1].set_title("least important first (higher is better)", size=9)
    for axes in panels[-1]:
        axes.set_xlabel("part of the cells that is removed", size=9)
    handles, names = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", fontsize=8, frameon=False)
    count = len(table.photos)
    title = " · ".join(filter(None, [table.title, f"{count} photo{'s' * (count != 1)}", "mean and 95 % band"]))
    figure.suptitle(printable(title), size=10, parse_math=False)
    return figure


def _draw(axes: "Axes", grid: Array, values: Array, name: str, table: "Table") -> None:
    controls = table.controls
    if name in controls:
        index = controls.index(name) % len(_GREYS)
        style: dict[str, Any] = {"color": _GREYS[index], "linestyle": _DASHES[index], "linewidth": 1.2}
    else:
        style = {"color": f"C{list(table.contestants).index(name) % 10}", "linestyle": "-", "linewidth": 1.8}
    band = intervals(values, seed=table.seed)
    axes.plot(grid, [each.mean for each in band], label=printable(name), **style)
    if len(values) > 1:
        low, high = ([getattr(each, end) for each in band] for end in ("low", "high"))
        axes.fill_between(grid, low, high, color=style["color"], alpha=0.08 if name in controls else 0.15, linewidth=0)


def _photos(table: "Table", baseline: str, grid: Array) -> dict[str, tuple[Array, Array]]:
    """By map, the curves (photos, points) of either order, at common points; a photo's targets are averaged."""
    points: dict[str, dict[str, dict[str, list[tuple[float, float, float]]]]] = {}
    for row in table.curves:
        if row.baseline == baseline:
            targets = points.setdefault(row.map, {}).setdefault(row.photo, {})
            targets.setdefault(row.target, []).append((row.removed, row.most, row.least))
    found = {}
    for name, photos in points.items():
        means = np.stack(
            [np.mean([_at(grid, each) for each in targets.values()], axis=0) for targets in photos.values()]
        )
        found[name] = means[:, 0], means[:, 1]
    return found


def _at(grid: Array, points: list[tuple[float, float, float]]) -> Array:
    """(2, points)."""
    removed, most, least = np.array(points).T
    return np.stack([np.interp(grid, removed, most), np.interp(grid, removed, least)])
