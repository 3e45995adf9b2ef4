"""Grad-CAM++ by captured activations."""

from typing import ClassVar

from torch import Tensor

from attribution.techniques import GradCAMPlusPlus
from attribution_hooks.cam.family import CamAttributor, weighted


class HooksGradCAMPlusPlus(CamAttributor[GradCAMPlusPlus]):
    """`GradCAMPlusPlus` without squares and cubes, which vanish in float32: α · ReLU(g) = ReLU(g) / (2 + Σ A · g)."""

    technique_type: ClassVar[type[GradCAMPlusPlus]] = GradCAMPlusPlus

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Σ over channels of (Σ ReLU(gradient) / (2 + Σ activation · gradient)) · activation."""
        a, g = (each.reshape(*each.shape[:3], -1) for each in (activation, gradient))
        below = (a.sum(dim=3, keepdim=True) * g).add_(2).masked_fill_(g <= 0, 1)  # there ReLU(g) is 0
        return weighted(g.relu().div_(below).sum(dim=3), activation[:, 0])
