"""Panels laid out in lines on one figure, and the figure as a file."""

import math
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from attribution import numbers
from attribution.errors import InputError, OutputError
from attribution.images.files import MADE_BY
from attribution.paths import named
from attribution.plots.panels import HIGHEST, LETTERS, LOWEST, Panel, paint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Aspect = float | Literal["equal"] | None

MOST_LINES = 80  # a PNG of Agg is at most 65,536 pixels high
_LINE = 0.14  # inches that a line of text of this size takes
_EDGE = 0.12
_BAR, _UNIT, _TICKS = 0.5, 0.14, 0.5


def draw(
    lines: Sequence[Sequence[Panel]],
    *,
    width: float,
    title: str = "",
    labels: Sequence[str] = (),
    aspect: Aspect = None,
) -> "Figure":
    """Lays panels out, ``width`` inches each, in lines that may carry a label on their left.

    Args:
        lines: Of panels.
        width: Of a panel, in inches.
        title: Of the whole figure.
        labels: Of the lines.
        aspect: Height by width of each panel, which stretches what is drawn; ``"equal"``: pixels are squares; ``None``:
            they are, unless a panel would be too low or too high to be read.

    Raises:
        InputError: ``width`` or ``aspect`` is of another kind.
    """
    if len(lines) > MOST_LINES:
        title = f"{title} (the first {MOST_LINES} of {len(lines)} lines)".strip()
    lines = [[replace(panel, title=printable(panel.title)) for panel in line] for line in lines[:MOST_LINES]]
    title, labels = printable(title), [printable(label) for label in labels[:MOST_LINES]]
    ratio, square = _ratio(lines, aspect)
    height = width * ratio
    head = 0.09 + _LINE * max(panel.title.count("\n") + 1 for line in lines for panel in line)
    top = 0.32 if title else 0.03
    longest = max((len(part) for label in labels for part in label.split("\n")), default=0)
    starts = _columns(lines, _EDGE + 0.075 * longest, width)
    breadth = max(starts[-1], 0.085 * len(title) + 2 * _EDGE)
    depth = top + len(lines) * (head + height) + _EDGE
    figure = empty(breadth, depth)
    if title:
        figure.text(0.5, 1 - 0.16 / depth, title, ha="center", va="center", size=10, parse_math=False)
    for row, line in enumerate(lines):
        bottom = depth - top - (row + 1) * (head + height)
        if labels:
            middle = (bottom + height / 2) / depth
            figure.text(_EDGE / breadth, middle, labels[row], va="center", size=LETTERS + 1, parse_math=False)
        for panel, start in zip(line, starts, strict=False):
            span = starts[-1] - _EDGE - start if panel.wide else width
            left = _TICKS if panel.curve else 0.0
            box = ((start + left) / breadth, bottom / depth, (span - left) / breadth, height / depth)
            paint(figure.add_axes(box), panel, span, square)
    return figure


def empty(width: float, height: float, dpi: float = 100.0) -> "Figure":
    """A figure without pyplot, of so many inches, which a notebook shows as it is."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from attribution.plots.notebook import Shown

    figure = Shown(figsize=(width, height), dpi=dpi)
    FigureCanvasAgg(figure)
    return figure


def printable(text: str) -> str:
    """With ``?`` in place of lone surrogates, as of file names in another encoding, which matplotlib cannot draw."""
    return text.encode("utf-8", "replace").decode()


def save(figure: "Figure", path: Path, *, dpi: float = 150) -> None:
    """Writes a figure as PNG, cropped to its content; the file appears whole or not at all.

    Args:
        figure: Of this package, or another of matplotlib.
        path: Of the file.
        dpi: Dots per inch; 300 for print.

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
        figure.savefig(part, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": MADE_BY})
        os.replace(part, path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot write {named(path)!r}: {reason}") from error
    finally:
        with suppress(OSError, ValueError):
            part.unlink()


def _ratio(lines: Sequence[Sequence[Panel]], aspect: Aspect) -> tuple[float, Literal["equal", "auto"]]:
    """Height by width of the tallest panel, and whether pixels are squares: ``"equal"`` or ``"auto"``."""
    tallest = max((panel.ratio for line in lines for panel in line if not panel.wide), default=0.5)
    if aspect == "equal":
        return tallest, "equal"
    if aspect is None:
        return min(max(tallest, LOWEST), HIGHEST), "equal" if LOWEST <= tallest <= HIGHEST else "auto"
    number = numbers.real(aspect)
    if number is None or not 0 < number < math.inf:
        raise InputError(f"aspect is {aspect!r}; give 'equal', or height by width of a panel such as 0.5")
    return number, "auto"


def _columns(lines: Sequence[Sequence[Panel]], left: float, width: float) -> list[float]:
    """Where each column begins, in inches, and where the last one ends."""
    starts = [left]
    for column in range(max(8 if panel.wide else len(line) for line in lines for panel in line)):
        bar = any(panel.bar for line in lines for panel in line[column : column + 1])
        unit = any(panel.unit and not panel.wide for line in lines for panel in line[column : column + 1])
        starts.append(starts[-1] + width + _EDGE + (_BAR if bar else 0.0) + (_UNIT if bar and unit else 0.0))
    return starts
