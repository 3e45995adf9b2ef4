"""SmoothGrad in chunks of noisy copies and examples."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from attribution.techniques.gradient.smooth_grad import SmoothGrad
from attribution_hooks.gradient.sums import GradientSums


class HooksSmoothGrad(GradientSums[SmoothGrad]):
    """The statistic from the means of the gradients and of their squares, of which each takes what it needs."""

    technique_type: ClassVar[type[SmoothGrad]] = SmoothGrad
    only_shows: ClassVar[bool] = True
    precise: ClassVar[bool] = True

    def moments(self, technique: SmoothGrad) -> tuple[int, ...]:
        """Of the gradients, of their squares, or of both."""
        return {"mean": (1,), "squared": (2,)}.get(technique.statistic, (1, 2))

    def combine(self, technique: SmoothGrad, moments: Sequence[Tensor]) -> Tensor:
        """One of the means, or the variance, which rounding must not make negative."""
        if technique.statistic != "variance":
            return super().combine(technique, moments)
        mean, squared = moments
        return (squared - mean**2).clamp(min=0)
