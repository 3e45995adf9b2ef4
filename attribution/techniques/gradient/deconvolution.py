"""Deconvolution: which input values would a network that runs backwards draw for the score?"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Self

from attribution.inputs.inputs import Inputs
from attribution.techniques.gradient.family import AveragedGradient, Point


@dataclass(frozen=True, kw_only=True, eq=False)
class Deconvolution(AveragedGradient):
    r"""The gradient of the score, of which every rectifier on the way back is a ReLU of the gradient itself.

    raw = ∂S/∂x with another rule at each y = ReLU(x) of the model: from g at y to ReLU(g) at x, whatever x was, where
    the gradient has g · 1[x > 0].

    A rectifier is a ReLU, or ReLU6 and any other hardtanh from 0 to b, with the same rule. Everything else keeps its
    own backward, as for `GuidedBackprop`, with the same provenance. Max pools send the gradient to the places that were
    largest, as the paper's switches do.

    Sign and unit: positive where a larger value is drawn; in units of the score per unit of the model's input. It is no
    gradient of anything: only pictures of it are meant. Raw maps are (N, T, C, …), and so are maps; (N, T, …) with
    other ``channels``.

    Args:
        channels: See `AveragedGradient`.

    Raises:
        InputError: A field is of the wrong type.
        ModelError: When run: as for `GuidedBackprop`.

    Source: M. D. Zeiler, R. Fergus, *Visualizing and Understanding Convolutional Networks*, ECCV 2014, section 2.1; as
    a rule for ReLUs: Simonyan et al. 2014, section 4. Departs from the paper: it starts from any score, at the end of
    the network; the paper from one value of a layer, which is `LayerScore`.
    """

    name: ClassVar[str] = "deconvolution"

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
