"""What layers see and what excites filters: many small pictures, some of them at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

from attribution.plots import pixels
from attribution.plots.pixels import Pixels, array
from attribution.report import pictures
from attribution.report.views import number
from attribution.result import Attribution
from attribution.techniques.filter_visualization import DEAD, DIVERGED

COLUMNS, ROWS = 8, 4
"""Of a page of channels."""

SIDE = 64
"""Pixels of a channel along its longer side at most; what is larger is shrunk by means."""

_GAP = 0.24  # of a channel's width: the line of words below it


@dataclass(frozen=True)
class Page:
    """Some channels of a layer in one picture.

    Attributes:
        first: The number of the first one.
        told: Of each channel, the values at the ends of its colours, or what is the same everywhere in it.
        picture: All of them.
    """

    first: int
    told: tuple[str, ...]
    picture: str

    @property
    def last(self) -> int:
        """The number of the last one."""
        return self.first + len(self.told) - 1


@dataclass(frozen=True)
class Layer:
    """The channels of a layer.

    Attributes:
        name: As in the model.
        shape: "64 × 54 × 54": channels, height, width.
        count: Of the channels; 0 where the layer has none that could be drawn, and is one picture.
        pages: Some channels each.
        note: What is to be known of it.
    """

    name: str
    shape: str
    count: int
    pages: tuple[Page, ...]
    note: str


@dataclass(frozen=True)
class Pattern:
    """What excites a filter.

    Attributes:
        title: "channel 4".
        objective: How much it is excited in the end.
        status: "dead" or "diverged"; else empty.
        picture: The input that does.
    """

    title: str
    objective: str
    status: str
    picture: str


def layers(answer: Attribution, most: int) -> Iterator[Layer]:
    """The activations of one image, layer by layer; at most so many channels of each."""
    for name, map_ in answer.maps.items():
        shape = " × ".join(map(str, map_.shape[1:])) or "1"
        if map_.ndim != 4:
            values = pictures.shrunk(pixels.strip(array(map_[0])))
            page = Page(0, (_ends(values),), pictures.sprite([values], 1, 0))
            yield Layer(name, shape, 0, (page,), "all values, channels from top to bottom")
            continue
        count = map_.shape[1]
        drawn = [array(channel) for channel in map_[0, :most]]
        tiles = [pictures.shrunk(values, SIDE) for values in drawn]
        gap = max(1, round(_GAP * tiles[0].shape[1]))
        pages = tuple(
            Page(
                first,
                tuple(map(_ends, drawn[first : first + COLUMNS * ROWS])),
                pictures.sprite(tiles[first : first + COLUMNS * ROWS], COLUMNS, gap),
            )
            for first in range(0, len(tiles), COLUMNS * ROWS)
        )
        notes = [
            f"the first {most} of {count} channels" if count > most else "",
            f"shrunk to {' × '.join(map(str, tiles[0].shape))} for the page" if tiles[0] is not drawn[0] else "",
        ]
        yield Layer(name, shape, count, pages, ", ".join(filter(None, notes)))


def patterns(answer: Attribution) -> Iterator[tuple[str, list[Pattern]]]:
    """Layer by layer, the pictures that a technique made."""
    titles = list(getattr(answer.technique, "titles", ()))
    status, objective = answer.extras.get("status"), answer.extras.get("objective")
    words = {DEAD: "dead", DIVERGED: "diverged"}
    place = 0
    for layer, map_ in answer.maps.items():
        found = []
        for values in map_:
            found.append(
                Pattern(
                    titles[place] if place < len(titles) else str(place),
                    "" if objective is None else number(float(objective[-1][place])),
                    "" if status is None else words.get(int(status[place]), ""),
                    pictures.pattern(pictures.shrunk(_drawn(array(values)))),
                )
            )
            place += 1
        yield layer, found


def _drawn(values: Pixels) -> Pixels:
    return pixels.pattern(values) if values.ndim == 3 else pixels.strip(values)


def _ends(values: Pixels) -> str:
    low, high = float(values.min()), float(values.max())
    return f"{number(low)} everywhere" if low == high else f"{number(low)} to {number(high)}"
