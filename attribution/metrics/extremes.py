"""The picture of the photos on which each technique is best and worst."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from attribution.errors import InputError
from attribution.inputs.inputs import Inputs
from attribution.metrics import kept
from attribution.metrics.metric import over_places
from attribution.plots.sheet import printable
from attribution.runs.folder import RunFolder
from attribution.runs.items import Items
from attribution.runs.overlays import overlaid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from attribution.metrics.table import Table

COUNT = 3

Shown = Callable[[str], tuple["np.ndarray[Any, Any]", Mapping[str, Tensor]]]
"""From a photo's name to what the model saw, (H, W, 3) in [0, 1], and each map over it, (H, W)."""


def extremes_figure(table: "Table", shown: Shown, count: int = COUNT) -> "Figure":
    """A line per technique: the photos of its best values of the headline, then those of its worst, under its maps.

    Maps are drawn as they were ordered, cell by cell, each on its own scale: symmetric about 0 where values are
    negative, and else from its smallest value to its largest, since the order is all that was measured.

    Args:
        table: Of an evaluation.
        shown: Gives photos and maps.
        count: Photos of either kind; with few photos fewer.

    Raises:
        InputError: There are fewer than two photos, or no technique was measured by the headline.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    values = table.values(table.headline)
    names = [name for name in table.ranking() if name in table.contestants]
    photos = {name: table.extremes(name, count) for name in names}
    if not names or not all(best for best, _ in photos.values()):
        raise InputError("there are fewer than two photos, so that none is best")
    place = {photo: k for k, photo in enumerate(table.photos_of(table.headline))}
    columns = 2 * len(photos[names[0]][0])
    tall, wide = shown(photos[names[0]][0][0])[0].shape[:2]
    figure = Figure(
        figsize=(1.7 * columns, 0.5 + (0.3 + 1.7 * min(2.0, tall / wide)) * len(names)), layout="constrained"
    )
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(names), columns, squeeze=False)
    for name, line in zip(names, panels, strict=True):
        best, worst = photos[name]
        for axes, photo in zip(line, [*best, *worst[::-1]], strict=True):
            picture, maps = shown(photo)
            map_ = maps[name]
            axes.imshow(overlaid(map_, picture, signed=bool((map_ < 0).any()), zero=False))
            stem = Path(photo).stem[-22:]
            title = f"{stem} {values[name][place[photo]]:.2g}"
            axes.set_title(printable(title), size=7, parse_math=False)
            axes.set_xticks([])
            axes.set_yticks([])
        line[0].set_ylabel(printable(name), size=8, parse_math=False)
    title = f"{table.headline}: best {columns // 2} photos on the left, worst on the right"
    figure.suptitle(printable(" · ".join(filter(None, [table.title, title]))), size=9, parse_math=False)
    return figure


def of_run(root: Path, items: Items, picture: Callable[[Tensor], "np.ndarray[Any, Any]"]) -> Shown:
    """Photos and maps of an evaluation that is kept in a folder.

    Args:
        root: The folder.
        items: Of the run.
        picture: From inputs (1, C, H, W) to what the model saw, (1, H, W, 3) in [0, 1].
    """
    folder = RunFolder.read(root)
    numbers = {name: item for item, name in enumerate(kept.photo_names(folder))}

    def shown(photo: str) -> tuple["np.ndarray[Any, Any]", Mapping[str, Tensor]]:
        item = numbers[photo]
        inputs = Inputs.of(items[item].inputs[None])
        maps = {name: over_places(map_[None, :1], inputs)[0, 0] for name, map_ in kept.maps(folder, item).items()}
        return picture(inputs.tensor)[0], maps

    return shown
