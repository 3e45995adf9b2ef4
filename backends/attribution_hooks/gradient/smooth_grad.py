"""SmoothGrad in chunks of noisy copies and examples."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from attribution.techniques.gradient.smooth_grad import SmoothGrad
from attribution_hooks.gradient.sums import GradientSums


class HooksSmoothGrad(GradientSums[SmoothGrad]):
    """The statistic from the means of the gradients and of their squares, whichever it is."""

    technique_type: ClassVar[type[SmoothGrad]] = SmoothGrad

    def combine(self, technique: SmoothGrad, moments: Sequence[Tensor]) -> Tensor:
        """One of the means, or the variance, which rounding must not make negative."""
        mean, squared = moments
        found = {"mean": mean, "squared": squared}
        return found[technique.statistic] if technique.statistic in found else (squared - mean**2).clamp(min=0)
