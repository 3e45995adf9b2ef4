"""What a page shows of an answer: its heatmaps one by one, each with its colours, its words and its numbers."""

from collections.abc import Iterator
from dataclasses import dataclass

from attribution import class_names, drawing
from attribution.class_names import ClassNames
from attribution.plots.heatmaps import TARGETS
from attribution.plots.pixels import Pixels, array, resized
from attribution.plots.scales import said, scales
from attribution.report import pictures
from attribution.result import Attribution


@dataclass(frozen=True)
class View:
    """One heatmap of one image, layer and target.

    Attributes:
        technique: By the name it was asked under.
        words: What it is called, such as "Grad-CAM".
        layer: Empty for maps of the input.
        target: Such as "espresso (967)"; empty where nothing is explained.
        score: Of the target, with its word: "logit 16.2".
        map: Its picture, on the grid of the picture that it is laid over.
        size: Height and width of that.
        cmap: Its colours.
        ticks: The values at the ends and in the middle of the colours.
        unit: Of the values.
        signed: Whether negative values mean something.
        note: What is to be known of it, such as "zero everywhere".
    """

    technique: str
    words: str
    layer: str
    target: str
    score: str
    map: str
    size: tuple[int, int]
    cmap: str
    ticks: tuple[str, str, str]
    unit: str
    signed: bool
    note: str

    @property
    def title(self) -> str:
        """In words: "Grad-CAM of espresso (967) · features.12"."""
        return " · ".join(filter(None, (f"{self.words} of {self.target}" if self.target else self.words, self.layer)))

    @property
    def alt(self) -> str:
        """For those who do not see it."""
        low, _, high = self.ticks
        unit = f" {self.unit}" if self.unit else ""
        sides = f"blue {low} to red {high}{unit}" if self.signed else f"dark {low} to bright {high}{unit}"
        return f"{self.title}: {self.note or sides}"


@dataclass(frozen=True)
class Plate:
    """A figure of what has no place on the picture: series, volumes, tables."""

    title: str
    picture: str


def views_of(name: str, answer: Attribution, labels: ClassNames | None, picture: Pixels | None) -> Iterator[View]:
    """The planes of an answer of one image, layer by layer, of at most 40 targets: those of the highest scores.

    Args:
        name: Under which it was asked.
        answer: Of one image.
        labels: Class names.
        picture: (H, W, 3) that the maps are laid over, as large as the page shows it; ``None``: there is none.
    """
    technique = answer.technique
    maps, done = technique.drawn(answer.maps)
    unit = "" if "fused" in answer.provenance else technique.unit_of(drawing.score_word(answer))
    targets = told_targets(answer, labels)
    word = drawing.score_word(answer)
    for key, map_ in maps.items():
        if map_.ndim != 4:
            continue
        count = map_.shape[1]
        for t in _shown(answer, count):
            values = array(map_[0, t])
            (scale,) = scales([values], signed=technique.signed, zero=technique.has_zero)
            small = pictures.shrunk(values)
            laid = small if picture is None or small.shape == picture.shape[:2] else resized(small, picture)
            target, score = targets[t] if t < len(targets) else (f"target {t}" if count > 1 else "", "")
            shrunk = "" if small is values else f"{values.shape[0]} × {values.shape[1]} places, shrunk for the page"
            yield View(
                technique=name,
                words=technique.words,
                layer="" if key == "input" else key,
                target=target,
                score=f"{word} {score}" if score else "",
                map=pictures.coloured(laid, scale),
                size=(laid.shape[0], laid.shape[1]),
                cmap=scale.cmap,
                ticks=(number(scale.low), number((scale.low + scale.high) / 2), number(scale.high)),
                unit=unit,
                signed=technique.signed,
                note=" · ".join(filter(None, (said(values), done, shrunk))),
            )


def left_out(answer: Attribution) -> str:
    """What the planes of an answer leave out, in a sentence; empty: nothing."""
    if all(map_.ndim < 2 or map_.shape[1] <= TARGETS for map_ in answer.maps.values()):
        return ""
    counts = [map_.shape[1] for map_ in answer.technique.drawn(answer.maps)[0].values() if map_.ndim == 4]
    if not counts:
        return ""
    which = "first" if answer.scores is None else "highest by their scores"
    return f"Of {max(counts)} targets of {answer.technique.words} {TARGETS} are shown, the {which}."


def _shown(answer: Attribution, count: int) -> list[int]:
    """The places of the targets whose maps are shown: all in order, or the highest ones."""
    if count <= TARGETS or answer.scores is None or answer.scores.shape[1] != count:
        return list(range(min(count, TARGETS)))
    return answer.scores[0].argsort(descending=True, stable=True)[:TARGETS].tolist()


def plates_of(answer: Attribution, labels: ClassNames | None) -> Iterator[Plate]:
    """A figure of the heatmaps that are no planes."""
    maps, _ = answer.technique.drawn(answer.maps)
    if answer.technique.kind == "heatmap" and any(map_.ndim != 4 for map_ in maps.values()):
        yield Plate(answer.technique.words, pictures.figure(answer.figure(labels=labels)))


def told_targets(answer: Attribution, labels: ClassNames | None) -> list[tuple[str, str]]:
    """Of one image, each target's name and score; classes with their index, since two may share a name."""
    if answer.scores is None:
        return []
    scores = [number(score) for score in answer.scores[0].tolist()]
    if answer.target is None:
        return list(zip(answer.names[0], scores, strict=True))
    classes = answer.target[0].tolist()
    names = class_names.titles(labels, classes)
    told = [name if name == f"class {k}" else f"{name} ({k})" for name, k in zip(names, classes, strict=True)]
    return list(zip(told, scores, strict=True))


def number(value: float) -> str:
    """Three digits, without an exponent where there is a shorter way."""
    return "0" if value == 0 else f"{float(f'{value:.3g}'):g}".replace("-", "−")
