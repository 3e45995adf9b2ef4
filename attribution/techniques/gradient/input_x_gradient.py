"""Input × gradient: what does each input value contribute to the score, to first order?"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attribution.inputs.inputs import Inputs
from attribution.techniques.gradient.family import AveragedGradient, Point


@dataclass(frozen=True, kw_only=True, eq=False)
class InputXGradient(AveragedGradient):
    r"""The gradient of the score, multiplied by the input.

    raw = x · ∂S/∂x.

    Sign and unit: positive where the value, as it stands against 0, raises the score; in units of the score. For a
    model that is linear without a bias the map adds up to the score. 0 is whatever the transform makes 0: of normalised
    images the mean colour. Raw maps are (N, T, C, …), and so are maps; (N, T, …) with other ``channels``.

    Args:
        channels: See `AveragedGradient`.

    Raises:
        InputError: A field is of the wrong type.
        ModelError: When run: no gradient reaches the inputs.

    Source: A. Shrikumar, P. Greenside, A. Shcherbina, A. Kundaje, *Not Just a Black Box: Learning Important Features
    Through Propagating Activation Differences*, arXiv 1605.01713, 2016. Departs from the paper: nowhere.
    """

    name: ClassVar[str] = "input_x_gradient"
    title: ClassVar[str] = "Input × gradient"

    def points(self, inputs: Inputs) -> Iterator[Point]:
        """The inputs, which are the factor too."""
        yield Point(inputs)

    def factor(self, inputs: Inputs) -> dict[str, Tensor]:
        """The inputs."""
        return {name: inputs.values[name] for name in inputs.explained}
