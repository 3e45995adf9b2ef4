"""Grad-CAM by Captum's ``LayerGradCam``."""

from typing import ClassVar

import torch
from captum.attr import LayerGradCam
from torch import Tensor

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.technique import Maps
from attribution.techniques import GradCAM
from attribution_captum.layer import check, connected, modules, typed


class CaptumGradCAM(Attributor[GradCAM]):
    """`GradCAM` by one ``LayerGradCam`` call per layer and target, detached; Captum's own ReLU stays off."""

    technique_type: ClassVar[type[GradCAM]] = GradCAM
    backend: ClassVar[str] = "captum"

    def compute(self, run: Run) -> Maps:
        """(N, T, h, w) for each layer. Classes are selected in the forward that Captum makes anyway."""
        names = self.technique.layers
        asked = modules(run.model, names)
        for name, stop in zip(names, check(run.model, names, run.inputs), strict=True):
            if stop.shape is None or len(stop.shape) != 4:
                raise layers.not_a_map(name, stop.shape or ())
        maps: Maps = {}
        for name, module in zip(names, asked, strict=True):
            columns: list[Tensor] = []
            while run.target is None or len(columns) < run.target.shape[1]:
                cam = LayerGradCam(_Score(run, column=len(columns)), module)
                with typed(), connected(layers.no_influence(name)):
                    columns.append(cam.attribute(run.inputs).detach())
            maps[name] = torch.cat(columns, dim=1)
        return maps


class _Score:
    """One target's logit for each image: the forward function that Captum is given."""

    def __init__(self, run: Run, column: int) -> None:
        self.run = run
        self.column = column

    def __call__(self, x: Tensor) -> Tensor:
        logits = self.run.forward(x)
        target = self.run.select(logits) if self.run.target is None else self.run.target
        return logits.gather(1, target)[:, self.column]
