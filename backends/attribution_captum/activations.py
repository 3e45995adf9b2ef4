"""Activations by Captum's ``LayerActivation``."""

from functools import partial
from typing import ClassVar

import torch
from captum.attr import LayerActivation
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.inputs.inputs import Inputs
from attribution.isolation.torch_modes import devices_of
from attribution.technique import Maps
from attribution.techniques import Activations
from attribution_captum.layer import Truncated, check, explained, forward, modules, typed


class CaptumActivations(Attributor[Activations]):
    """`Activations` from one full forward of ``LayerActivation`` over a list of layers.

    Where the model fails after the layers, on images of a size that only its rest does not take, it ends after them.
    """

    technique_type: ClassVar[type[Activations]] = Activations
    backend: ClassVar[str] = "captum"

    def image_bytes(self, model: nn.Module, technique: Activations, inputs: Inputs) -> int:
        """What is widest in a forward without graph, and the maps of which the means are taken."""
        kept = sum(stop.bytes for stop in check(model, technique.layers, inputs))
        return 2 * layers.peak_bytes(model, inputs) + (kept if technique.reduce == "mean" else 0)

    def compute(self, run: Run[Activations]) -> Maps:
        """Every layer's output, which Captum clones before the network goes on, or its mean."""
        names = run.technique.layers
        asked = modules(run.model, names)
        stops = check(run.model, names, run.inputs)
        if run.technique.reduce == "mean":
            for name, stop in zip(names, stops, strict=True):
                if stop.shape is None or len(stop.shape) != 4:
                    raise layers.no_space(name, stop.shape or ())
        fails = layers.survey(run.model, run.inputs).failure is not None
        # Captum takes several layers for replicas of one if they are on several devices
        apart = len(devices_of(run.model)) > 1
        with typed():
            values = [
                value
                for some in ([[module] for module in asked] if apart else [asked])
                for value in LayerActivation(Truncated(run, some) if fails else partial(forward, run), some).attribute(
                    explained(run)
                )
            ]
        for name, value in zip(names, values, strict=True):
            layers.per_image(name, value.shape, len(run.inputs))
        if run.technique.reduce == "mean":
            values = [_mean(value) for value in values]
        return dict(zip(names, values, strict=True))


def _mean(value: Tensor) -> Tensor:
    """(N, D, h, w) → (N, D)."""
    wide = value.to(torch.promote_types(value.dtype, torch.float32)).flatten(2)
    return wide.sum(dim=2) / wide.shape[2]
