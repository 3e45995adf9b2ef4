"""Saliency: to which pixels is the score most sensitive?"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

from attribution.inputs.inputs import Inputs
from attribution.techniques.gradient.family import AveragedGradient, Channels, Point
from attribution.techniques.parameters import flag


@dataclass(frozen=True, kw_only=True, eq=False)
class Saliency(AveragedGradient):
    r"""How strongly the score answers to a small change of each input value.

    raw = |∂S/∂x|, or ∂S/∂x without ``absolute``;  map[i, j] = max over channels c of raw[c, i, j].

    Sign and unit: not negative; in units of the score per unit of the model's input. Without ``absolute`` positive
    where a larger value raises the score. Raw maps are (N, T, C, …), maps (N, T, …), or (N, T, C, …) with
    ``channels="none"``; (N, T, F) for inputs (N, F).

    Args:
        channels: See `AveragedGradient`.
        absolute: Take the absolute value of each channel first, as the paper does.

    Raises:
        InputError: A field is of the wrong type.
        ModelError: When run: no gradient reaches the inputs.

    Source: K. Simonyan, A. Vedaldi, A. Zisserman, *Deep Inside Convolutional Networks: Visualising Image
    Classification Models and Saliency Maps*, ICLR 2014 workshop, section 3.1. Departs from the paper: nowhere.
    """

    name: ClassVar[str] = "saliency"
    formula: ClassVar[tuple[str, ...]] = ("channels", "absolute")

    channels: Channels = "max"
    absolute: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "absolute", flag("Saliency", "absolute", self.absolute))

    @property
    def signed(self) -> bool:
        """Only without ``absolute``."""
        return not self.absolute

    def unit_of(self, score: str) -> str:
        """A gradient's."""
        return f"{score} per unit of the input"

    def points(self, inputs: Inputs) -> Iterator[Point]:
        """The inputs."""
        yield Point(inputs)

    @classmethod
    def example(cls) -> Self:
        """As it is."""
        return cls()
