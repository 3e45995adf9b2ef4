"""Input × gradient from one forward, and one backward for each target."""

from typing import ClassVar

from attribution.techniques.gradient.input_x_gradient import InputXGradient
from attribution_hooks.gradient.sums import GradientSums


class HooksInputXGradient(GradientSums[InputXGradient]):
    """raw = x · ∂S/∂x: the sum over the only point, whose factor is x."""

    technique_type: ClassVar[type[InputXGradient]] = InputXGradient
    only_shows: ClassVar[bool] = True
