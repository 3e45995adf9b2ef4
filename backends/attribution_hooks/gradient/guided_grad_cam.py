"""Guided Grad-CAM from one forward, and two backwards for each target."""

from typing import ClassVar

from torch import nn

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.inputs.inputs import Inputs
from attribution.technique import Maps
from attribution.techniques.gradient.guided_grad_cam import GuidedGradCAM
from attribution_hooks.capture import capture
from attribution_hooks.gradient.enlarged_cam import enlarged
from attribution_hooks.gradient.gradients import stacked
from attribution_hooks.gradient.rectifiers import apart_from_views, rectify


class HooksGuidedGradCAM(Attributor[GuidedGradCAM]):
    """raw = guided backpropagation · enlarged Grad-CAM: plain backwards come first, then the graph gets the rule."""

    technique_type: ClassVar[type[GuidedGradCAM]] = GuidedGradCAM
    backend: ClassVar[str] = "hooks"

    def image_bytes(self, model: nn.Module, technique: GuidedGradCAM, inputs: Inputs) -> int:
        """The whole forward's graph, and the gradients of its widest part."""
        return layers.graph_bytes(model, inputs) + 2 * layers.peak_bytes(model, inputs)

    def compute(self, run: Run[GuidedGradCAM]) -> Maps:
        """(N, T, C, …) for each explained input."""
        layer, leaves = run.technique.layer, run.inputs.detach().requires_grad_()
        with apart_from_views(), capture(run.model, [layer], gradients="to the layers") as caught:
            output = run.forward(leaves)
        columns = run.scores(output).unbind(1)
        cams = enlarged(run, caught, columns)
        rectify(run, output, leaves, "guided")
        guided = stacked(columns, leaves)
        return {run.inputs.key(name): guided[name] * cam.to(guided[name].device) for name, cam in cams.items()}
