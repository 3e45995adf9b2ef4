"""Panels laid out in lines on one figure, and the figure as a file."""

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from attribution.errors import OutputError
from attribution.paths import named
from attribution.plots.pixels import Pixels, resized, shaded

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES = 80  # a PNG of Agg is at most 65,536 pixels high
_SIZE = 7.0  # points
_LINE = 0.14  # inches that a line of text of this size takes
_EDGE = 0.12
_BAR = 0.58


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture of a figure: ``pixels`` (h, w) through a colour map, or (h, w, 3) colours in [0, 1].

    ``backdrop`` shades the colours with a picture, ``bar`` formats the numbers at a colour bar,
    ``wide`` stretches the panel over the whole line.
    """

    pixels: Pixels
    title: str
    cmap: str = "viridis"
    limits: tuple[float, float] | None = None
    backdrop: Pixels | None = None
    bar: str = ""
    wide: bool = False


def draw(lines: Sequence[Sequence[Panel]], *, width: float, title: str = "", labels: Sequence[str] = ()) -> "Figure":
    """Lays panels out, ``width`` inches each, in lines that may carry a label on their left."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if len(lines) > MOST_LINES:
        title = f"{title} (the first {MOST_LINES} of {len(lines)} lines)".strip()
    lines = [[replace(panel, title=printable(panel.title)) for panel in line] for line in lines[:MOST_LINES]]
    title, labels = printable(title), [printable(label) for label in labels[:MOST_LINES]]
    height = width * _ratio(lines)
    head = 0.09 + _LINE * max(panel.title.count("\n") + 1 for line in lines for panel in line)
    top = 0.32 if title else 0.03
    longest = max((len(part) for label in labels for part in label.split("\n")), default=0)
    starts = _columns(lines, _EDGE + 0.075 * longest, width)
    breadth = max(starts[-1], 0.085 * len(title) + 2 * _EDGE)
    depth = top + len(lines) * (head + height) + _EDGE
    figure = Figure(figsize=(breadth, depth))
    FigureCanvasAgg(figure)
    if title:
        figure.text(0.5, 1 - 0.16 / depth, title, ha="center", va="center", size=10, parse_math=False)
    for row, line in enumerate(lines):
        bottom = depth - top - (row + 1) * (head + height)
        if labels:
            middle = (bottom + height / 2) / depth
            figure.text(_EDGE / breadth, middle, labels[row], va="center", size=_SIZE + 1, parse_math=False)
        for panel, start in zip(line, starts, strict=False):
            span = starts[-1] - _EDGE - start if panel.wide else width
            box = (start / breadth, bottom / depth, span / breadth, height / depth)
            _paint(figure.add_axes(box), panel, span)
    return figure


def printable(text: str) -> str:
    """With ``?`` in place of lone surrogates, as of file names in another encoding, which matplotlib cannot draw."""
    return text.encode("utf-8", "replace").decode()


def save(figure: "Figure", path: Path) -> None:
    """Writes a figure as PNG, 150 dpi, cropped to its content; the file appears whole or not at all.

    Raises:
        OutputError: the folder is missing or cannot be written to.
    """
    try:
        path = Path(path)
        folder = path.parent.is_dir()
    except (TypeError, OSError) as error:
        raise OutputError(f"cannot write {named(path)}: {error}; give the path of a file") from error
    if not folder:
        raise OutputError(f"no folder {str(path.parent)!r} for {path.name}; make it first")
    part = path.parent / f".{secrets.token_hex(4)}"  # a name made of the path's could be too long
    try:
        figure.savefig(part, format="png", dpi=150, bbox_inches="tight")
        os.replace(part, path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot write {named(path)!r}: {reason}") from error
    finally:
        with suppress(OSError, ValueError):
            part.unlink()


def _ratio(lines: Sequence[Sequence[Panel]]) -> float:
    """Height by width of the tallest panel, within what keeps a figure readable."""
    shapes = [p.pixels.shape for line in lines for p in line if not p.wide]
    return min(max([h / w for h, w, *_ in shapes], default=0.5), 2.0) if shapes else 0.5


def _columns(lines: Sequence[Sequence[Panel]], left: float, width: float) -> list[float]:
    """Where each column begins, in inches, and where the last one ends."""
    starts = [left]
    for column in range(max(8 if panel.wide else len(line) for line in lines for panel in line)):
        bar = any(panel.bar for line in lines for panel in line[column : column + 1])
        starts.append(starts[-1] + width + _EDGE + (_BAR if bar else 0.0))
    return starts


def _paint(axes: "Axes", panel: Panel, width: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    axes.set_axis_off()
    longest = max(map(len, panel.title.split("\n")))
    size = min(_SIZE, max(4.5, width * 72 / (0.56 * max(longest, 1))))
    axes.set_title(_shortened(panel.title, width * 72 / (0.56 * size)), size=size, pad=3, parse_math=False)
    low, high = panel.limits or (float(panel.pixels.min()), float(panel.pixels.max()))
    scale = ScalarMappable(Normalize(low, high), panel.cmap)
    pixels = panel.pixels
    if panel.backdrop is not None:
        pixels = shaded(scale.to_rgba(resized(pixels, panel.backdrop))[..., :3], panel.backdrop)
    drawn = axes.imshow(pixels, aspect="auto" if panel.wide else "equal", interpolation="nearest")
    drawn.set(norm=scale.norm, cmap=scale.cmap)
    if panel.bar:
        ticks = sorted({low, (low + high) / 2, high})
        bar = axes.figure.colorbar(scale, cax=axes.inset_axes((1.03, 0.0, 0.05, 1.0)), ticks=ticks)
        bar.set_ticklabels([panel.bar.format(tick) for tick in ticks])
        bar.ax.tick_params(labelsize=_SIZE - 1, length=2, pad=1)


def _shortened(title: str, room: float) -> str:
    """Each line cut in the middle to at most ``room`` letters."""
    keep = max(int(room), 8)
    lines = title.split("\n")
    return "\n".join(t if len(t) <= keep else f"{t[: keep // 2]}…{t[len(t) - keep // 2 + 1 :]}" for t in lines)
