"""Guided backpropagation: which input values raise the score along paths of positive gradients only?"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

from attribution.inputs.inputs import Inputs
from attribution.techniques.gradient.family import AveragedGradient, Point


@dataclass(frozen=True, kw_only=True, eq=False)
class GuidedBackprop(AveragedGradient):
    r"""The gradient of the score, of which every rectifier on the way back lets only positive values through.

    raw = ∂S/∂x with another rule at each y = ReLU(x) of the model: from g at y to ReLU(g) · 1[x > 0] at x, where the
    gradient has g · 1[x > 0].

    A rectifier is a ReLU, or ReLU6 and any other hardtanh from 0 to b: from g to ReLU(g) · 1[0 < x < b]. Everything
    else keeps its own backward: GELU, SiLU, a leaky ReLU, a hardtanh from below 0, a clamp, max pools. What bends and
    has no rule is named in ``provenance["passed over"]``; ``provenance["rectifiers"]`` counts those that have it.
    Rectifiers of the score itself have none.

    Sign and unit: positive where a larger value raises the score; in units of the score per unit of the model's input.
    It is no gradient of anything: only pictures of it are meant. Raw maps are (N, T, C, …), and so are maps; (N, T, …)
    with other ``channels``.

    Args:
        channels: See `AveragedGradient`.

    Raises:
        InputError: A field is of the wrong type.
        ModelError: When run: no rectifier lies between the inputs and the score, so that the map would be the plain
            gradient; one lies where nothing can reach it; or no gradient reaches the inputs.

    Source: J. T. Springenberg, A. Dosovitskiy, T. Brox, M. Riedmiller, *Striving for Simplicity: The All Convolutional
    Net*, ICLR 2015 workshop, section 3.4 and figure 1. Departs from the paper: it knows no ReLU6.
    """

    name: ClassVar[str] = "guided_backprop"
    title: ClassVar[str] = "Guided backpropagation"

    def points(self, inputs: Inputs) -> Iterator[Point]:
        """The inputs."""
        yield Point(inputs)

    def unit_of(self, score: str) -> str:
        """A gradient's."""
        return f"{score} per unit of the input"

    @classmethod
    def example(cls) -> Self:
        """Channels added up."""
        return cls(channels="sum")
