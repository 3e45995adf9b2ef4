"""``Report``: answers about images as one page that opens anywhere, without a network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from attribution import class_names, numbers, paths
from attribution.class_names import ClassNames
from attribution.comparison import Comparison
from attribution.errors import InputError
from attribution.metrics import Table
from attribution.plots import pictures
from attribution.plots.backdrops import Bands
from attribution.plots.pixels import Pixels
from attribution.result import Attribution
from attribution.runs import files
from attribution.runs.explaining import chosen

Top = Sequence[tuple[str, int, float]]
"""The most probable classes of an image, best first: label, index, probability, as `LoadedModel.top` gives them."""


FORM = (".html", ".htm"), "the only format reports are written in"


@dataclass(frozen=True, eq=False)
class Item:
    """What was answered about one image.

    Args:
        answers: By name, each of one image: heatmaps and activations.
        name: Of the image.
        image: What the model saw, as for `Attribution.figure`; ``None``: maps stand alone.
        whole: The photo itself, likewise, where it is not known what the model saw of it: it stands beside the maps.
        top: The most probable classes.
        comparisons: Of backends, by the names of the techniques.
        notes: What should be known of the image, or why it has no answers.
        mean: Of the transform that made ``image``, as for `Attribution.figure`.
        std: Likewise.
        bands: Which channels of ``image`` are shown, likewise.

    Raises:
        InputError: An answer is of several images, or of none; or the picture has another form.
    """

    answers: Mapping[str, Attribution]
    name: str = "image"
    image: Any = None
    whole: Any = None
    top: Top = ()
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    notes: Sequence[str] = ()
    mean: Any = None
    std: Any = None
    bands: Bands = None

    def __post_init__(self) -> None:
        for name, answer in self.answers.items():
            if not isinstance(answer, Attribution):
                raise InputError(f"{name!r} is a {type(answer).__name__}; give an Attribution, as explain returns it")
            if answer.technique.kind == "image":
                raise InputError(f"{name!r} shows filters, not an image; give it to the report: Report(filters=…)")
            if (count := _count(answer)) != 1:
                raise InputError(f"{name!r} is of {count} images; Item.each makes an item of each")
        for name, compared in self.comparisons.items():
            if not isinstance(compared, Comparison):
                raise InputError(f"{name!r} is a {type(compared).__name__}; give a Comparison, as compare returns it")
        for picture, look in ((self.image, self._look), (self.whole, {})):
            if picture is not None:
                pictures(picture, 1, **look)  # refused here, not when the page is made

    @property
    def seen(self) -> Pixels | None:
        """What the model saw, (H, W, 3) in [0, 1]."""
        return None if self.image is None else pictures(self.image, 1, **self._look)[0]

    @property
    def _look(self) -> dict[str, Any]:
        return {"mean": self.mean, "std": self.std, "bands": self.bands}

    @classmethod
    def each(
        cls,
        answers: Mapping[str, Attribution],
        *,
        names: Sequence[str] = (),
        images: Any = None,
        tops: Sequence[Top] = (),
        mean: Any = None,
        std: Any = None,
        bands: Bands = None,
    ) -> list[Self]:
        """An item for each image of a batch.

        Args:
            answers: By name, all of the same images.
            names: Of the images; by default their numbers.
            images: Of all of them, as for `Attribution.figure`.
            tops: The most probable classes of each.
            mean: Of the transform that made ``images``, as for `Attribution.figure`.
            std: Likewise.
            bands: Which channels of ``images`` are shown, likewise.

        Raises:
            InputError: The answers are of different numbers of images, or there are others of names or pictures.
        """
        counts = {name: _count(answer) for name, answer in answers.items()}
        if len({*counts.values()}) != 1:
            raise InputError(f"the answers are of {counts or 'no'} images; give answers about the same images")
        (count,) = {*counts.values()}
        for told, given in (("names", names), ("tops", tops)):
            if len(given) not in (0, count):
                raise InputError(f"{len(given)} {told} for {count} images; give one for each")
        seen = [None] * count if images is None else pictures(images, count, mean=mean, std=std, bands=bands)
        return [
            cls(
                {name: chosen(answer, [k], count) for name, answer in answers.items()},
                name=names[k] if names else f"image {k}",
                image=seen[k],
                top=tops[k] if tops else (),
            )
            for k in range(count)
        ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """A page of answers: photos, every map over its photo, channels, filters, agreement, evidence, and their origin.

    The page is one HTML file with all that it shows inside. It asks no network for anything, and forbids itself to.

    Args:
        items: Images with their answers, in the order of the page.
        title: Of the page; empty: the name of its only item, or "Attribution maps".
        labels: Class names.
        filters: Answers of techniques that make their own images, by name.
        evidence: Scores of techniques, as `metrics.evaluate` gives them.
        facts: What else the page says of its origin, in words: ``{"weights": "SHA-256 …"}``.
        command: What makes the page again.
        left_out: What is not on the page, in a sentence.
        channels: Of a layer, how many are shown at most.

    Raises:
        InputError: There is nothing to show, or an argument is of another kind.
    """

    items: Sequence[Item] = ()
    title: str = ""
    labels: ClassNames | None = None
    filters: Mapping[str, Attribution] = field(default_factory=dict)
    evidence: Table | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    left_out: str = ""
    channels: int = 512

    def __post_init__(self) -> None:
        class_names.every(self.labels)
        if not self.items and not self.filters and self.evidence is None:
            raise InputError("the report has nothing to show; give items, filters or evidence")
        for item in self.items:
            if not isinstance(item, Item):
                raise InputError(f"items holds a {type(item).__name__}; give report.Item(answers, image=…)")
        for name, answer in self.filters.items():
            if not isinstance(answer, Attribution) or answer.technique.kind != "image":
                raise InputError(f"filters holds {name!r}, which makes no images; answers about images are items")
        number = numbers.integer(self.channels)
        if number is None or number < 1:
            raise InputError(f"channels is {self.channels!r}; expected an int of at least 1")

    @property
    def heading(self) -> str:
        """The title, or what stands in its place."""
        return self.title or (self.items[0].name if len(self.items) == 1 else "Attribution maps")

    def html(self) -> str:
        """The page.

        Raises:
            NonFiniteError: NaN or infinity in a map.
        """
        from attribution.report.page import html

        return html(self)

    def save(self, path: str | Path) -> Path:
        """Write the page into a file, which appears whole or not at all.

        Raises:
            OutputError: Another suffix than ``.html``, a folder that does not exist, or a write that fails.
        """
        place = paths.writable(path, *FORM)
        files.write(place, self.html().encode())
        return place


def _count(answer: Attribution) -> int:
    """How many images an answer is of."""
    return max((len(map_) if map_.ndim else 0 for map_ in answer.maps.values()), default=0)
