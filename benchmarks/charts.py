"""Pictures of the results: ratios with their intervals, and how time and memory grow."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.schema import Duel, Result, ResultsFile

SCALING = "scaling"
"""Questions whose label starts so exist to draw growth, and stand in no table of ratios."""

_TICKS = [digit * 10.0**power for power in range(-2, 5) for digit in (1, 2, 5)]
_COLOURS = {"hooks": "#1f77b4", "captum": "#d62728"}
_AXES: tuple[tuple[str, str, Callable[[Result], int]], ...] = (
    ("windows", "windows", lambda result: result.row.windows),
    ("targets", "targets", lambda result: result.row.targets),
    ("filters", "filters", lambda result: result.row.filters),
    ("image size", "image side (px)", lambda result: result.row.pixels),
)


def ratios(results: Sequence[Result], path: Path, title: str) -> None:
    """One bar per raced row, with its 95 % interval, on a logarithmic axis with 1 marked."""
    raced = [(r, r.duel) for r in results if r.duel and not r.row.question.startswith(SCALING)]
    figure = Figure(figsize=(9, 1.2 + 0.24 * len(raced)), layout="constrained")
    axes = figure.add_subplot()
    for position, (_, duel) in enumerate(reversed(raced)):
        error = [[max(duel.ratio - duel.low, 0)], [max(duel.high - duel.ratio, 0)]]
        colour = "#2ca02c" if duel.low > 1 else "#d62728" if duel.high < 1 else "#999999"
        axes.barh(position, duel.ratio, xerr=error, color=colour, height=0.7, error_kw={"lw": 1})
    axes.set_yticks(range(len(raced)), [_name(result, duel) for result, duel in reversed(raced)], fontsize=7)
    axes.axvline(1, color="black", lw=0.8)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    ticks = [tick for tick in _TICKS if low <= tick <= high]
    ticks = ticks if len(ticks) < 8 else [tick for tick in ticks if np.log10(tick) % 1 == 0]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(-0.6, len(raced) - 0.4)
    figure.supxlabel("times as fast (median of interleaved pairs, 95 % interval)", fontsize=10)
    axes.set_title(title, fontsize=10)
    _save(figure, path)


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


def _name(result: Result, duel: Duel) -> str:
    row = result.row
    return f"{row.question} · {row.model} · b{row.batch} · {row.dtype}: {duel.ours} vs {duel.other}"


def _save(figure: Figure, path: Path) -> None:
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(100)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    picture.quantize(32, dither=Image.Dither.NONE).save(path, optimize=True)
