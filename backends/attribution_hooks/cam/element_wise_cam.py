"""Element-wise Grad-CAM by captured activations."""

from typing import ClassVar

from torch import Tensor

from attribution.techniques import ElementWiseCAM
from attribution_hooks.cam.family import CamAttributor


class HooksElementWiseCAM(CamAttributor[ElementWiseCAM]):
    """`ElementWiseCAM`: what is positive of each value by its own gradient."""

    technique_type: ClassVar[type[ElementWiseCAM]] = ElementWiseCAM

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Σ over channels of ReLU(gradient · activation)."""
        return (gradient * activation).relu().sum(dim=2)
