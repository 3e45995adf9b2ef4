"""``side_by_side``: answers of several techniques on one figure."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attribution import drawing
from attribution.class_names import ClassNames
from attribution.errors import InputError, named
from attribution.result import Attribution

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def side_by_side(
    results: Mapping[str, Attribution],
    image: Any = None,
    labels: ClassNames | None = None,
    *,
    model: str | None = None,
    mean: Any = None,
    std: Any = None,
) -> "Figure":
    """A matplotlib figure with the picture and a panel for each technique, layer and target, each on its own scale.

    Args:
        results: Heatmaps of the same images, by what the panels are called; `explain_many` gives them so.
        image: As for `Attribution.figure`.
        labels: Likewise.
        model: Likewise.
        mean: Likewise, with ``std``.
        std: Likewise.

    Raises:
        InputError: A result holds no heatmaps, or those of other images; or see `Attribution.figure`.
    """
    from attribution import plots
    from attribution.plots import backdrops

    if not isinstance(results, Mapping):
        raise InputError(
            f"results are a {type(results).__name__}; give a dict from names to answers, as explain_many returns it"
        )
    drawn = {}
    for name, result in results.items():
        technique = result.technique
        with named(name):
            if technique.kind != "heatmap":
                raise InputError(f"{technique.name} gives no heatmaps; draw it by its own .figure()")
            maps, done = technique.drawn(result.maps)
            titles, unit = drawing.target_titles(result, labels), technique.unit_of(drawing.score_word(result))
            drawn[name] = plots.Heatmaps(maps, technique.signed, technique.has_zero, titles, unit, done)
    if drawn and image is not None and not (mean is None and std is None):
        first = next(iter(drawn.values())).maps
        image = backdrops.pictures(image, len(next(iter(first.values()))), mean=mean, std=std)
    called = dict.fromkeys(str(result.provenance.get("model", "")) for result in results.values())
    title = " · ".join(filter(None, [f"{len(drawn)} techniques", *([model] if model else called)]))
    return plots.side_by_side_figure(drawn, image=image, title=title)
