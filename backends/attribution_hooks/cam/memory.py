"""Bytes of activations that CAMs need, by what each layer put out when the model was surveyed."""

from collections.abc import Sequence

from torch import nn

from attribution import layers
from attribution.errors import ModelError
from attribution.inputs.inputs import Inputs
from attribution.layers import Stop


def forward_bytes(model: nn.Module, inputs: Inputs, names: Sequence[str]) -> int:
    """Of one image: all that the graph holds from the first layer on, and each layer twice, kept and handed on."""
    stops, first = _surveyed(model, inputs, names)
    held = sum(stop.bytes * stop.calls for stop in stops if stop.leaf and stop.order >= first)
    return held + 2 * _kept(model, stops, names)


def gradient_bytes(
    model: nn.Module, inputs: Inputs, names: Sequence[str], *, together: bool = False, kept: int = 1
) -> int:
    """Of one image and one target: the gradients of the layers, and of the tail's widest part.

    Where several targets go together, what is widest is copied once more: seeds and images become one axis. ``kept``
    copies of the layers' own gradients are there at once.
    """
    stops, first = _surveyed(model, inputs, names)
    widest = max((stop.bytes for stop in stops if stop.leaf and stop.order >= first), default=0)
    return (4 if together else 3) * widest + kept * _kept(model, stops, names)


def _surveyed(model: nn.Module, inputs: Inputs, names: Sequence[str]) -> tuple[tuple[Stop, ...], int]:
    try:
        stops = layers.survey(model, inputs)
    except ModelError:  # a model that runs only with a graph from the layers on
        return (), 0
    ends = {stop.module: stop.order for stop in stops if stop.calls == 1}
    return stops, min(ends.get(layers.find(model, name)[1], 0) for name in names)


def _kept(model: nn.Module, stops: Sequence[Stop], names: Sequence[str]) -> int:
    asked = {layers.find(model, name)[1] for name in names}
    return sum(stop.bytes for stop in stops if stop.module in asked)
