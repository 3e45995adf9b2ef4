"""Pictures of the results: ratios, and how time and memory grow."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.schema import Duel, Result, ResultsFile

SCALING = "scaling"
"""Questions whose label starts so exist to draw growth, and stand in no table of ratios."""

_POWERS = [10.0**power for power in range(-3, 6)]
_TICKS = (
    _POWERS,
    [digit * power for power in _POWERS for digit in (1, 2, 5)],
    [digit * power for power in _POWERS for digit in range(1, 10)],
    [round(0.1 * tenth, 1) for tenth in range(1, 51)],
    [round(0.02 * fiftieth, 2) for fiftieth in range(5, 251)],
)
"""From coarse to fine."""
_DEVICES = {"cpu": "#1f77b4", "cuda": "#2ca02c"}
_COLOURS = {"hooks": "#1f77b4", "captum": "#d62728"}
_AXES: tuple[tuple[str, str, Callable[[Result], int]], ...] = (
    ("windows", "windows", lambda result: result.row.windows),
    ("targets", "targets", lambda result: result.row.targets),
    ("filters", "filters", lambda result: result.row.filters),
    ("image size", "image side (px)", lambda result: result.row.pixels),
)


def strip(races: Mapping[str, Mapping[str, Sequence[Duel]]], path: Path, title: str) -> None:
    """A line per opponent with a dot for each race and a bar at the median, on a logarithmic axis with 1 marked.

    Args:
        races: By opponent, then by kind of device.
        path: Of the picture.
        title: Of the chart.
    """
    lines = [(other, device, duels) for other, found in races.items() for device, duels in found.items()]
    figure = Figure(figsize=(7, 0.95 + 0.26 * len(lines)), layout="constrained")
    axes = figure.add_subplot()
    for position, (_, device, duels) in enumerate(reversed(lines)):
        found = [duel.ratio for duel in duels]
        axes.plot(found, [position] * len(found), "o", ms=4, alpha=0.6, mew=0, color=_DEVICES.get(device, "#555555"))
        axes.plot([median(found)] * 2, [position - 0.32, position + 0.32], color="black", lw=1.6)
    axes.set_yticks(range(len(lines)), [f"{other} · {device}" for other, device, _ in reversed(lines)], fontsize=8)
    axes.axvline(1, color="black", lw=0.8, ls=":")
    axes.set_xscale("log")
    ticks = ticks_of(*axes.get_xlim())
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], fontsize=8)
    axes.minorticks_off()
    axes.set_ylim(-0.6, len(lines) - 0.4)
    axes.set_xlabel("times as fast; a dot is a race, a bar the median", fontsize=8)
    axes.set_title(title, fontsize=9)
    _save(figure, path)


def ticks_of(low: float, high: float) -> list[float]:
    """At least three numbers to read an axis by, 1 among them where it is on the axis, and fewer than eight."""
    found = [[tick for tick in ticks if low <= tick <= high] for ticks in _TICKS]
    coarse = next((ticks for ticks in found if len(ticks) >= 3), found[-1])
    if len(coarse) < 8:
        return coarse
    every = -(-len(coarse) // 7)
    first = coarse.index(1) % every if 1 in coarse else 0
    return coarse[first::every]


def growth(file: ResultsFile, path: Path, title: str) -> bool:
    """Time, and memory where it is known, against windows, targets, filters, image size; False without such rows."""
    rows = [r for r in file.results if r.row.question.startswith(SCALING)]
    if not rows:
        return False
    remembered = all(r.peak_bytes is not None for r in rows)
    figure = Figure(figsize=(12, 3 + 3 * remembered), layout="constrained")
    panels = figure.subplots(1 + remembered, len(_AXES), squeeze=False)
    for column, (name, label, value) in enumerate(_AXES):
        chosen = [r for r in rows if f"{SCALING}, {name}" in r.row.question]
        _line(panels[0][column], chosen, value, file.seconds)
        if remembered:
            _line(panels[1][column], chosen, value, lambda r: (r.peak_bytes or 0) / 2**20)
        panels[0][column].set_title(f"against {name}", fontsize=10)
        panels[-1][column].set_xlabel(label)
    panels[0][0].set_ylabel("seconds")
    if remembered:
        panels[1][0].set_ylabel("peak memory (MiB)")
    panels[0][0].legend(fontsize=8)
    figure.suptitle(title, fontsize=10)
    _save(figure, path)
    return True


def _line(axes: Axes, rows: Sequence[Result], x: Callable[[Result], int], y: Callable[[Result], float]) -> None:
    for backend in sorted({r.row.backend for r in rows}):
        points = sorted((x(r), y(r)) for r in rows if r.row.backend == backend)
        axes.plot(*zip(*points, strict=True), marker="o", label=backend, color=_COLOURS.get(backend))
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=8)


def _save(figure: Figure, path: Path) -> None:
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(100)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture.quantize(32, dither=Image.Dither.NONE).save(path, optimize=True)
