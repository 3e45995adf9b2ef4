"""Heatmaps of several techniques on one figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from attribution.errors import InputError
from attribution.plots.backdrops import Picture, pictures
from attribution.plots.heatmaps import COLUMNS, TARGETS, bare, counted, over
from attribution.plots.panels import Panel
from attribution.plots.pixels import Pixels, array
from attribution.plots.scales import said, scales
from attribution.plots.sheet import draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Heatmaps:
    """The maps of one technique.

    Attributes:
        maps: Layer or ``"input"`` → (N, T, h, w), or another form of `heatmap_figure`.
        signed: See there.
        zero: See there.
        titles: Of the targets, N·T, image by image.
        unit: Of the values.
        done: What was done to the maps for the figure, in a few words.
    """

    maps: Mapping[str, Tensor]
    signed: bool = False
    zero: bool = True
    titles: Sequence[str] = ()
    unit: str = ""
    done: str = ""


def side_by_side_figure(
    techniques: Mapping[str, Heatmaps], *, image: "Picture | None" = None, title: str = "", alpha: float = 0.45
) -> "Figure":
    """For each image its picture, where given, and then one panel for each technique, layer and target.

    All panels of an image stand in one line where they fit; else each technique begins a line. Every panel says its
    technique, and has its own scale and colour bar.

    Args:
        techniques: By what panels are called.
        image: What the model saw; see `plots.pictures`. Beside series and volumes it is left out.
        title: Of the whole figure.
        alpha: Share of the colour over the picture, in [0, 1].

    Raises:
        InputError: No maps, a wrong shape, or techniques that differ in the number of images.
        NonFiniteError: NaN or infinity in a map.
    """
    if not techniques:
        raise InputError("no techniques to draw; give at least one")
    counts = sorted({counted(each.maps)[0] for each in techniques.values()})
    if len(counts) > 1:
        raise InputError(f"the techniques' maps are of {counts} images; give answers about the same images")
    (count,) = counts
    flat = all(map.ndim == 4 for each in techniques.values() for map in each.maps.values())
    shown = [None] * count if image is None or not flat else pictures(image, count)
    lines: list[list[Panel]] = []
    for n, backdrop in enumerate(shown):
        own = [_panels(name, each, n, backdrop, alpha) for name, each in techniques.items()]
        first = [] if backdrop is None else [Panel(pixels=backdrop, title=f"image {n}" if count > 1 else "image")]
        together = [panel for panels in own for panel in panels]
        for row in [together] if len(together) <= COLUMNS else own:
            lines += [[*first, *row[i : i + COLUMNS]] for i in range(0, len(row), COLUMNS)]
    return draw(lines, width=2.2, title=title)


def _panels(name: str, answer: Heatmaps, n: int, backdrop: Pixels | None, alpha: float) -> list[Panel]:
    """Of one image; a technique's name and layer, the target, and what was done, stand in lines above each other."""
    found: list[Panel] = []
    for key, map in answer.maps.items():
        targets = map.shape[1]
        for t in range(min(targets, TARGETS)):
            values = array(map[n, t])
            (scale,) = scales([values], signed=answer.signed, zero=answer.zero)
            above = name if key == "input" else f"{name} · {key}"
            target = answer.titles[n * targets + t] if answer.titles else f"target {t}" if targets > 1 else ""
            text = "\n".join(filter(None, (above, target, answer.done, said(values))))
            if backdrop is None:
                found += bare(values, scale, text, answer.unit, bar=True)
            else:
                found.append(over(backdrop, values, scale, text, answer.unit, alpha, answer.signed))
    return found
