"""XGrad-CAM by captured activations."""

from typing import ClassVar

from torch import Tensor

from attribution.techniques import XGradCAM
from attribution_hooks.cam.family import CamAttributor, weighted


class HooksXGradCAM(CamAttributor[XGradCAM]):
    """`XGradCAM`: weights that need the gradient of each place."""

    technique_type: ClassVar[type[XGradCAM]] = XGradCAM

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Σ over channels of (Σ gradient · activation / (Σ activation + 1e-7)) · activation."""
        a, g = (each.reshape(*each.shape[:3], -1) for each in (activation, gradient))
        return weighted((g * a).sum(dim=3) / (a.sum(dim=3) + 1e-7), activation[:, 0])
