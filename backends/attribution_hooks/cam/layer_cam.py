"""LayerCAM by captured activations."""

from typing import ClassVar

from torch import Tensor

from attribution.techniques import LayerCAM
from attribution_hooks.cam.family import CamAttributor


class HooksLayerCAM(CamAttributor[LayerCAM]):
    """`LayerCAM`: each value by its own positive gradient."""

    technique_type: ClassVar[type[LayerCAM]] = LayerCAM

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Σ over channels of ReLU(gradient) · activation."""
        return (gradient.relu() * activation).sum(dim=2)
