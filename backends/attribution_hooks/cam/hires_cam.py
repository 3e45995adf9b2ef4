"""HiResCAM by captured activations."""

from typing import ClassVar

from torch import Tensor

from attribution.techniques import HiResCAM
from attribution_hooks.cam.family import CamAttributor


class HooksHiResCAM(CamAttributor[HiResCAM]):
    """`HiResCAM`: each value by its own gradient."""

    technique_type: ClassVar[type[HiResCAM]] = HiResCAM

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Σ over channels of gradient · activation."""
        return self.terms(activation, gradient).sum(dim=2)

    def terms(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """The product, channel by channel."""
        return gradient * activation
