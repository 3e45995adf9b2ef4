"""The figure of an answer: titles in words, and the kind of picture that its maps need."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from attribution import class_names
from attribution.class_names import ClassNames
from attribution.scores.score import Score
from attribution.technique import Technique

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Drawable(Protocol):
    """What a figure needs to know of a result; ``Attribution`` satisfies it."""

    @property
    def maps(self) -> Mapping[str, Tensor]:
        """By layer, or input."""

    @property
    def technique(self) -> Technique:
        """That was asked."""

    @property
    def target(self) -> Tensor | None:
        """(N, T) class indices."""

    @property
    def score(self) -> Score | None:
        """What was explained."""

    @property
    def scores(self) -> Tensor | None:
        """(N, T)."""

    @property
    def names(self) -> tuple[tuple[str, ...], ...]:
        """Of the scores, N × T."""

    @property
    def extras(self) -> Mapping[str, Tensor]:
        """Whatever else the backend told."""

    @property
    def provenance(self) -> Mapping[str, str | int | float]:
        """Where it comes from."""


def figure(
    answer: Drawable, image: Any, labels: ClassNames | None, model: str | None, look: dict[str, Any]
) -> "Figure":
    """See `Attribution.figure`; ``look`` is for heatmaps alone."""
    from attribution import plots

    technique = answer.technique
    maps, done = technique.drawn(answer.maps)
    model = model or str(answer.provenance.get("model", ""))
    title = _joined(technique.words, model, done)
    if technique.kind == "activation":
        return plots.activation_figure(maps, title=title)
    if technique.kind == "image" and any(map_.ndim != 4 for map_ in maps.values()):
        titles = _image_titles(answer)
        strips = {
            f"{layer} · {titles[k] if k < len(titles) else k}": map_[k : k + 1]
            for layer, map_ in maps.items()
            for k in range(len(map_))
        }
        return plots.activation_figure(strips, title=title)
    if technique.kind == "image":
        return plots.image_figure(maps, titles=_image_titles(answer), title=title)
    names = target_names(answer, labels)
    if len(names) == len(maps) == 1:
        (layer,), (name,) = maps, names
        title = _joined(f"{technique.words} of {name}", "" if layer == "input" else layer, model, done)
    unit = "" if "fused" in answer.provenance else technique.unit_of(score_word(answer))
    about: dict[str, Any] = {"signed": technique.signed, "zero": technique.has_zero, "unit": unit}
    return plots.heatmap_figure(maps, image=image, titles=target_titles(answer, labels), title=title, **about, **look)


def embedded(figure: "Figure", words: str) -> str:
    """An ``img`` element that holds the figure, for a notebook; ``words`` stand in its place where pictures are off."""
    import base64
    import html
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    picture = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(words, quote=True)}" src="data:image/png;base64,{picture}">'


def target_names(answer: Drawable, labels: ClassNames | None) -> list[str]:
    """One name per image × target: that of a class in quotes, where it has one."""
    if answer.target is None:
        return [name for row in answer.names for name in row]
    classes = answer.target.flatten().tolist()
    both = zip(class_names.titles(labels, classes), class_names.titles(None, classes), strict=True)
    return [name if name == own else f"'{name}'" for name, own in both]


def target_titles(answer: Drawable, labels: ClassNames | None) -> list[str]:
    """One title per image × target: the class and its score."""
    if answer.scores is None:
        return []
    if answer.target is None:
        names = [f"{name}:" for row in answer.names for name in row]  # a name may end with a number
    else:
        names = class_names.titles(labels, answer.target.flatten().tolist())
    return [f"{name} {score:.3g}" for name, score in zip(names, answer.scores.flatten().tolist(), strict=True)]


def score_word(answer: Drawable) -> str:
    """What the score is called, such as ``"logit"`` or ``"probability"``."""
    of = getattr(answer.score, "of", None)
    return "score" if of is None else str(of).replace("_", " ").replace("sigmoid", "probability")


def _image_titles(answer: Drawable) -> list[str]:
    titles: Sequence[str] = getattr(answer.technique, "titles", ())
    status = answer.extras.get("status")
    words = ["", " (dead)", " (diverged)"]
    return [f"{title}{words[int(status[index])] if status is not None else ''}" for index, title in enumerate(titles)]


def _joined(*parts: str) -> str:
    return " · ".join(filter(None, parts))
