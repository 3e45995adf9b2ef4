"""Grad-CAM by Captum's ``LayerGradCam``."""

from typing import ClassVar

import torch
from captum.attr import LayerGradCam

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.errors import ModelError
from attribution.technique import Maps
from attribution.techniques import GradCAM
from attribution_captum.layer import check, modules, typed


class CaptumGradCAM(Attributor[GradCAM]):
    """`GradCAM` by one ``LayerGradCam`` call per layer and target, detached."""

    technique_type: ClassVar[type[GradCAM]] = GradCAM
    backend: ClassVar[str] = "captum"

    def compute(self, run: Run) -> Maps:
        """(N, T, h, w) for each layer; Captum's own ReLU stays off, the shared finish applies it."""
        names = self.technique.layers
        asked = modules(run.model, names)
        with torch.no_grad(), layers.record(run.model) as stops:
            target = run.select(run.forward(run.inputs))
        check(run.model, names, stops)
        maps: Maps = {}
        for name, module in zip(names, asked, strict=True):
            shape = next(stop.shape for stop in stops.values() if stop.module is module)
            if shape is None or len(shape) != 4:
                raise layers.not_a_map(name, shape or ())
            cam = LayerGradCam(run.forward, module)
            with typed(), _connected(name):
                columns = [cam.attribute(run.inputs, target=target[:, t]).detach() for t in range(target.shape[1])]
            maps[name] = torch.cat(columns, dim=1)
        return maps


class _connected:
    """Captum's message for a layer without influence on the score, in our words."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        cut = ("appears to not have been used", "does not require grad")
        if (
            isinstance(error, RuntimeError)
            and not isinstance(error, ModelError)
            and any(text in str(error) for text in cut)
        ):
            raise layers.no_influence(self._name) from error
