"""Heatmaps of several techniques on one figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from attribution.errors import InputError
from attribution.plots.figures import COLUMNS, TARGETS, checked, heatmap
from attribution.plots.pixels import Picture, Pixels, pictures
from attribution.plots.sheet import Panel, draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Heatmaps:
    """The maps of one technique.

    Attributes:
        maps: layer or ``"input"`` → (N, T, h, w).
        signed: see `heatmap_figure`.
        titles: of the targets, N·T, image by image.
        done: what was done to the maps for the figure, in a few words.
    """

    maps: Mapping[str, Tensor]
    signed: bool = False
    titles: Sequence[str] = ()
    done: str = ""


def side_by_side_figure(
    techniques: Mapping[str, Heatmaps], *, image: "Picture | None" = None, title: str = ""
) -> "Figure":
    """For each image its picture, where given, and then one panel for each technique, layer and target.

    All panels of an image stand in one line where they fit; else each technique begins a line. Every panel says its
    technique, and is scaled by itself.

    Args:
        techniques: by what panels are called.
        image: what the model saw, as for `heatmap_figure`.
        title: of the whole figure.

    Raises:
        InputError: no maps, a wrong shape, or techniques that differ in the number of images.
        NonFiniteError: NaN or infinity in a map.
    """
    if not techniques:
        raise InputError("no techniques to draw; give at least one")
    counts = {name: {len(map) for map in checked(each.maps, rank=4).values()} for name, each in techniques.items()}
    if len(found := set().union(*counts.values())) > 1:
        raise InputError(f"the techniques' maps are of {sorted(found)} images; give answers about the same images")
    (count,) = found
    lines: list[list[Panel]] = []
    for n, backdrop in enumerate([None] * count if image is None else pictures(image, count)):
        own = [_panels(name, each, n, backdrop) for name, each in techniques.items()]
        first = [] if backdrop is None else [Panel(pixels=backdrop, title=f"image {n}" if count > 1 else "image")]
        together = [panel for panels in own for panel in panels]
        rows = [together] if len(first) + len(together) <= COLUMNS + 1 else own
        for row in rows:
            lines += [[*first, *row[i : i + COLUMNS]] for i in range(0, len(row), COLUMNS)]
    return draw(lines, width=2.2, title=title)


def _panels(name: str, answer: Heatmaps, n: int, backdrop: Pixels | None) -> list[Panel]:
    """Of one image; a technique's name, layer and target, and what was done, stand in lines above each other."""
    found = []
    for key, map in answer.maps.items():
        targets = map.shape[1]
        for t in range(min(targets, TARGETS)):
            above = name if key == "input" else f"{name} · {key}"
            target = answer.titles[n * targets + t] if answer.titles else f"target {t}" if targets > 1 else ""
            text = "\n".join(filter(None, (above, target, answer.done)))
            found.append(heatmap(map[n, t], backdrop, answer.signed, text))
    return found
