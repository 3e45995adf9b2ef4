"""What is maximised, and what holds it back."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from attribution.errors import LayerError

LOGITS = "logits"
"""The layer name that stands for the model's own output, so that a channel is a class."""

Neuron = tuple[int, int] | Literal["center"] | None

_SOFT = 0.1


def objective(layer: str, activation: Tensor, channels: Tensor, largest: int, neuron: Neuron) -> Tensor:
    """Each image's own channel, at one position or averaged over space: (B, D, …) and (B,) → (B,).

    Raises:
        LayerError: The layer has no channel ``largest``, or no such position.
    """
    shape = tuple(activation.shape)
    if activation.ndim < 2 or largest >= shape[1]:
        raise LayerError(
            f"layer {layer!r} gives {shape}: it has no channel {largest}; "
            f"channels are counted from 0 to {shape[1] - 1 if activation.ndim > 1 else 0}"
        )
    channels = channels.to(activation.device)
    rows = torch.arange(len(channels), device=activation.device)
    if neuron is None:
        return activation[rows, channels].reshape(len(channels), -1).mean(dim=1)
    row, column = position(layer, shape, neuron)
    return activation[rows, channels, row, column]


def position(layer: str, shape: tuple[int, ...], neuron: tuple[int, int] | Literal["center"]) -> tuple[int, int]:
    """Row and column of a neuron in an activation (B, D, h, w).

    Raises:
        LayerError: The activation has no rows and columns, or not so many.
    """
    if len(shape) != 4:
        raise LayerError(f"layer {layer!r} gives {shape}: neuron={neuron!r} needs (N, D, h, w); leave neuron out")
    row, column = (shape[2] // 2, shape[3] // 2) if neuron == "center" else neuron
    if row >= shape[2] or column >= shape[3]:
        raise LayerError(f"layer {layer!r} gives {shape}: it has no neuron {neuron}; rows and columns count from 0")
    return row, column


def penalty(images: Tensor, spread: float, *, tv: float, l2: float) -> Tensor:
    """The gradient of the penalties, in units of the objective's: tv · Σ d / √(d² + 0.1²) + l2 · x.

    x is the image in spreads, d its differences from the four neighbours of a pixel.
    """
    x = images / spread
    total = l2 * x
    if tv:
        for dim, pad in ((2, ((0, 0, 1, 0), (0, 0, 0, 1))), (3, ((1, 0), (0, 1)))):
            edge = x.diff(dim=dim)
            pull = edge / (edge.square() + _SOFT**2).sqrt()
            total = total + tv * (functional.pad(pull, pad[0]) - functional.pad(pull, pad[1]))
    return total
