"""Saliency from one forward, and one backward for each target."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from attribution.techniques.gradient.saliency import Saliency
from attribution_hooks.gradient.sums import GradientSums


class HooksSaliency(GradientSums[Saliency]):
    """raw = |∂S/∂x|, or ∂S/∂x."""

    technique_type: ClassVar[type[Saliency]] = Saliency
    only_shows: ClassVar[bool] = True

    def combine(self, technique: Saliency, moments: Sequence[Tensor]) -> Tensor:
        """The gradient, or its absolute value."""
        (gradient,) = moments
        return gradient.abs() if technique.absolute else gradient
