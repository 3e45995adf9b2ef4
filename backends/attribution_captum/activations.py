"""Activations by Captum's ``LayerActivation``."""

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from captum.attr import LayerActivation
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.inputs.inputs import Inputs
from attribution.isolation.torch_modes import devices_of
from attribution.layers import LayerName
from attribution.technique import Maps
from attribution.techniques import Activations
from attribution_captum.layer import Truncated, explained, forward, item, places, ran, typed


class CaptumActivations(Attributor[Activations]):
    """`Activations` from one full forward of ``LayerActivation`` over a list of layers.

    Where the model fails after the layers, on images of a size that only its rest does not take, it ends after them.
    """

    technique_type: ClassVar[type[Activations]] = Activations
    backend: ClassVar[str] = "captum"

    def image_bytes(self, model: nn.Module, technique: Activations, inputs: Inputs) -> int:
        """What is widest in a forward without graph, and the maps of which the means are taken."""
        kept = sum(stop.bytes for stop in ran(model, technique.layers, inputs))
        return 2 * layers.peak_bytes(model, inputs) + (kept if technique.reduce == "mean" else 0)

    def compute(self, run: Run[Activations]) -> Maps:
        """Every layer's output or input, which Captum clones before the network goes on, or its mean."""
        values = layer_values(run, run.technique.layers)
        return {name: self._whole(run, name, values[name]) for name in run.technique.layers}

    def _whole(self, run: Run[Activations], name: str, value: Tensor) -> Tensor:
        """The map of all examples, or its mean over places."""
        axes = run.technique.axes(run.model, run.inputs, name, tuple(value.shape))
        if run.technique.reduce == "mean":
            wide = axes.first(value).to(torch.promote_types(value.dtype, torch.float32)).flatten(2)
            return wide.sum(dim=2) / wide.shape[2]
        if not axes.examples:
            return value
        run.note(f"axes {name}", "(L, N, D), given as (N, L, D)")
        return value.transpose(0, axes.examples)


def layer_values(run: Run[Any], names: Sequence[str]) -> Maps:
    """What ``LayerActivation`` gives for layers, outputs or inputs, by name.

    Raises:
        LayerError: See `places`.
        ModelError: Captum fails.
    """
    found = places(run.model, names, run.inputs)
    values: Maps = {}
    for entries in (False, True):  # one forward for the outputs, one for the inputs
        some = [(name, module) for name, module in found if name.entry is entries]
        if some:
            values |= _values(run, some, entries=entries)
    return values


def _values(run: Run[Any], some: list[tuple[LayerName, nn.Module]], *, entries: bool) -> Maps:
    asked = list(dict.fromkeys(module for _, module in some))
    fails = layers.survey(run.model, run.inputs).failure is not None
    # Captum takes several layers for replicas of one if they are on several devices
    apart = len(devices_of(run.model)) > 1
    given: dict[nn.Module, Tensor | tuple[Tensor, ...]] = {}
    with typed():
        for part in [[module] for module in asked] if apart else [asked]:
            method = LayerActivation(Truncated(run, part) if fails else partial(forward, run), part)
            held = method.attribute(explained(run), attribute_to_layer_input=entries)
            given |= zip(part, held, strict=True)
    return {name.text: item(name, given[module]) for name, module in some}
