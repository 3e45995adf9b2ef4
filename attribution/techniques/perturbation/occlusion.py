"""Occlusion sensitivity: which pixels matter most?"""

from dataclasses import InitVar, dataclass
from math import isfinite
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from attribution import numbers
from attribution.agreement import Agreement, agree, relative_tolerance
from attribution.errors import InputError
from attribution.inputs.inputs import Inputs
from attribution.scores.classes import ClassScore
from attribution.technique import Comparable, Kind, Maps, Technique, paired_maps
from attribution.techniques.parameters import choice, pair

Interval = tuple[int, int]


@dataclass(frozen=True)
class Lattice:
    """Where the windows lie: every row interval crossed with every column interval, half open."""

    rows: tuple[Interval, ...]
    columns: tuple[Interval, ...]

    @property
    def windows(self) -> list[tuple[Interval, Interval]]:
        """(rows, columns) of each window, row by row."""
        return [(row, column) for row in self.rows for column in self.columns]

    @property
    def extent(self) -> tuple[int, int]:
        """Height and width of the part of the image that some window covers."""
        return self.rows[-1][1], self.columns[-1][1]


@dataclass(frozen=True, kw_only=True)
class Occlusion(Technique):
    r"""How much the score drops when a window of the image is covered.

    δ[w] = score(x) − score(x with window w set to the baseline);
    map[i, j] = mean of δ[w] over the windows w that cover pixel (i, j).

    Sign and unit: positive where covering lowered the score, in units of the score; of classes that is the probability,
    unless the target says otherwise: ``target=ClassScore(3, of="logit")``.
    Maps are (N, T, H, W). Windows start at 0 and step by ``stride``.

    Args:
        window: Height and width of the cover in pixels, 1 to the image's.
        stride: Step in pixels, 1 to the window's.
        baseline: What covers, in model-input units (after the transform: 0 is the mean colour); one value, or one
            per input channel.
        border: ``"cover"``: the last window is cut at the border, so that every pixel is covered (Captum's lattice);
            ``"drop"``: it is left out, and pixels that no window covers are 0.

    Raises:
        InputError: A field is out of range, or the window does not fit the image.
        ModelError: When run: the probability of a model with a single output, whose softmax is always 1.

    Source: M. D. Zeiler, R. Fergus, *Visualizing and Understanding Convolutional Networks*, ECCV 2014, section 4.2.
    Departs from the paper: a difference to the clean score rather than the covered score, averaged over overlaps.
    """

    name: ClassVar[str] = "occlusion"
    kind: ClassVar[Kind] = "heatmap"
    needs_target: ClassVar[bool] = True
    default_score: ClassVar[ClassScore] = ClassScore(of="probability")
    takes_gradients: ClassVar[bool] = False
    batch_of: ClassVar[Literal["images", "windows", "filters"]] = "windows"

    window: int | tuple[int, int] = 40
    stride: int | tuple[int, int] = 20
    baseline: float | tuple[float, ...] = 0.0
    border: Literal["cover", "drop"] = "cover"
    score: InitVar[None] = None

    def __post_init__(self, score: None) -> None:
        if score is not None:
            raise InputError(
                "Occlusion has no score any more: it says of which number is spoken, so that it went to the target; "
                f"give target=ClassScore(…, of={score!r})"
            )
        for name in ("window", "stride"):
            value = pair("Occlusion", name, getattr(self, name))
            object.__setattr__(self, name, value[0] if value[0] == value[1] else value)
        object.__setattr__(self, "baseline", _baseline(self.baseline))
        object.__setattr__(self, "border", choice("Occlusion", "border", self.border, ("cover", "drop")))
        (height, width), (down, right) = self.size, self.step
        if down > height or right > width:
            raise InputError(
                f"Occlusion.stride {self.step} is larger than the window {self.size}: pixels would be left out"
            )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the window."""
        return pair("Occlusion", "window", self.window)

    @property
    def step(self) -> tuple[int, int]:
        """(down, right)."""
        return pair("Occlusion", "stride", self.stride)

    @property
    def signed(self) -> bool:
        """Negative: covering helps."""
        return True

    def check(self, inputs: Inputs) -> None:
        """The window fits the image, and a baseline per channel has as many values as the image has channels."""
        channels, height, width = inputs.shape[1:]
        if self.size[0] > height or self.size[1] > width:
            raise InputError(f"Occlusion.window {self.size} is larger than the image ({height}, {width})")
        if isinstance(self.baseline, tuple) and len(self.baseline) != channels:
            raise InputError(
                f"Occlusion.baseline has {len(self.baseline)} values for {channels} channels; give one, or {channels}"
            )

    def lattice(self, height: int, width: int) -> Lattice:
        """The windows on an image of this size; the one choice that both backends share."""
        rows, columns = (
            _intervals(size, window, step, whole_only=self.border == "drop")
            for size, window, step in zip((height, width), self.size, self.step, strict=True)
        )
        return Lattice(rows, columns)

    def cover(self, inputs: Tensor) -> Tensor:
        """The baseline as (1, C, 1, 1), in the dtype and on the device of the inputs."""
        if not isinstance(self.baseline, tuple):
            return inputs.new_full((1, inputs.shape[1], 1, 1), self.baseline)  # made there: nothing waits for a copy
        return torch.tensor(self.baseline, dtype=inputs.dtype, device=inputs.device).reshape(1, -1, 1, 1)

    def finish(self, raw: Maps, inputs: Inputs) -> Maps:
        """The raw map itself; it lies on the pixels already."""
        return raw

    def agreement(self, a: Comparable, b: Comparable) -> list[Agreement]:
        """max|a − b| ≤ tolerance · (max|map| + max|score|): a map is a difference of nearly equal scores.

        max|score| is over all classes, since the rounding of one logit goes by the size of what it is summed from,
        not by its own; over the asked ones where a result does not tell.
        """
        sizes = [side.extras.get("largest_score", side.scores) for side in (a, b)]
        size = max((float(scores.abs().max()) for scores in sizes if scores is not None), default=0.0)
        pieces = paired_maps(a, b, by_target=True)
        parts = [relative_tolerance(dtype, host=a.on_host and b.on_host) for *_, dtype in pieces]
        return [
            agree(name, x, y, relative=part, absolute=part * size)
            for (name, x, y, _), part in zip(pieces, parts, strict=True)
        ]

    @classmethod
    def example(cls) -> Self:
        """Windows for the small models' images."""
        return cls(window=5, stride=3)


def _baseline(value: object) -> float | tuple[float, ...]:
    several = numbers.items(value)
    found = tuple(map(numbers.real, (value,) if several is None else several))
    values = tuple(number for number in found if number is not None and isfinite(number))
    if len(values) < len(found):
        raise InputError(f"Occlusion.baseline is {value!r}; give a finite number, or one per input channel")
    if not values:
        raise InputError("Occlusion.baseline is empty; give a number, or one per input channel")
    return values[0] if several is None else values


def _intervals(size: int, window: int, step: int, *, whole_only: bool) -> tuple[Interval, ...]:
    count = (size - window) // step + 1 if whole_only else -(-(size - window) // step) + 1
    return tuple((index * step, min(index * step + window, size)) for index in range(count))
