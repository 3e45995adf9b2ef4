"""The objective of single units: a channel, averaged over its places or at one of them."""

from typing import Literal

import torch
from torch import Tensor

from attribution.errors import LayerError

LOGITS = "logits"
"""The layer name that stands for the model's own output, so that a channel is a class."""

Neuron = tuple[int, ...] | Literal["center"] | None


def objective(layer: str, activation: Tensor, channels: Tensor, largest: int, neuron: Neuron) -> Tensor:
    """Each image's own channel, at one position or averaged over space: (B, D, …) and (B,) → (B,).

    Raises:
        LayerError: The layer has no channel ``largest``, or no such position.
    """
    shape = tuple(activation.shape)
    if activation.ndim < 2 or largest >= shape[1]:
        raise no_channel(layer, shape, largest)
    channels = channels.to(activation.device)
    rows = torch.arange(len(channels), device=activation.device)
    if neuron is None:
        return activation[rows, channels].reshape(len(channels), -1).mean(dim=1)
    return at(activation, position(layer, shape, neuron))[rows, channels]


def at(activation: Tensor, place: tuple[int, ...]) -> Tensor:
    """(B, D) at one place of (B, D, *places)."""
    for index in reversed(place):
        activation = activation[..., index]
    return activation


def position(layer: str, shape: tuple[int, ...], neuron: tuple[int, ...] | Literal["center"]) -> tuple[int, ...]:
    """Where a neuron lies in an activation (B, D, *places): row and column, or one index per axis of places.

    Raises:
        LayerError: The activation has no places, not so many axes of them, or not so many places.
    """
    places = shape[2:]
    if not places or (neuron != "center" and len(neuron) != len(places)):
        letters = {1: "(N, D, t)", 3: "(N, D, d, h, w)"}.get(0 if neuron == "center" else len(neuron), "(N, D, h, w)")
        raise LayerError(f"layer {layer!r} gives {shape}: neuron={neuron!r} needs {letters}; leave neuron out")
    if neuron == "center":
        return tuple(size // 2 for size in places)
    if any(index >= size for index, size in zip(neuron, places, strict=True)):
        raise LayerError(f"layer {layer!r} gives {shape}: it has no neuron {neuron}; rows and columns count from 0")
    return neuron


def no_channel(layer: str, shape: tuple[int, ...], channel: int) -> LayerError:
    """The error for a channel beyond those that the layer has, (B, D, …)."""
    return LayerError(
        f"layer {layer!r} gives {shape}: it has no channel {channel}; "
        f"channels are counted from 0 to {shape[1] - 1 if len(shape) > 1 else 0}"
    )
