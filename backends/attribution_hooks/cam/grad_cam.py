"""Grad-CAM by captured activations."""

from typing import ClassVar

from torch import Tensor

from attribution.techniques import GradCAM
from attribution_hooks.cam.closed_form import given_back
from attribution_hooks.cam.family import CamAttributor


class HooksGradCAM(CamAttributor[GradCAM]):
    """`GradCAM`: the mean gradients are the weights of the channels."""

    technique_type: ClassVar[type[GradCAM]] = GradCAM

    @given_back
    def weights(self, activation: Tensor, mean_gradient: Tensor) -> Tensor:
        """The mean gradient itself."""
        return mean_gradient
