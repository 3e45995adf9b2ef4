"""Maps that know nothing of the model: what a technique must be better than."""

from collections.abc import Callable

import torch
from torch import Tensor

from attribution.inputs.inputs import Inputs
from attribution.metrics.draws import generator
from attribution.running.upload import upload

Control = Callable[[Inputs, int, int], Tensor]
"""Inputs, seed, and the place of the first photo in the data set → (N, 1, *cells)."""

_RANDOM = 2
_RANDOM_CELLS = 28


def controls(inputs: Inputs) -> dict[str, Control]:
    """By name: a random map, the centre prior and the edges; of features the random map alone.

    They cover the first explained input.
    """
    found: dict[str, Control] = {"random": random}
    if inputs.places():
        found |= {"centre": centre, "edges": edges}
    return found


def random(inputs: Inputs, seed: int, first: int) -> Tensor:
    """Independent uniform numbers, at most 28 cells along an axis."""
    sizes = inputs.places() or tuple(inputs.shape[1:])
    cells = tuple(min(size, _RANDOM_CELLS) for size in sizes) if inputs.places() else sizes
    drawn = [
        torch.rand((1, *cells), generator=generator(seed, first + n, _RANDOM), dtype=torch.float64, device="cpu")
        for n in range(len(inputs))
    ]
    return upload(torch.stack(drawn), inputs.device, torch.float32)


def centre(inputs: Inputs, seed: int, first: int) -> Tensor:
    """− the squared distance to the centre, each axis counted from −1 to 1: photographers put things there."""
    total = torch.zeros((), device=inputs.device)
    for size in inputs.places():
        along = (2 * torch.arange(size, device=inputs.device) + 1) / size - 1
        total = total[..., None] - along.square()
    return total.expand(len(inputs), 1, *total.shape)


def edges(inputs: Inputs, seed: int, first: int) -> Tensor:
    """The size of Sobel's gradient: root of the sum of squares over axes and channels, borders repeated."""
    x = inputs.first.float()
    axes = range(2, x.ndim)
    total = torch.zeros_like(x)
    for along in axes:
        found = x
        for axis in axes:
            before, after = _shifted(found, axis)
            found = after - before if axis == along else before + 2 * found + after
        total += found.square()
    return total.sum(dim=1, keepdim=True).sqrt()


def _shifted(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The neighbour before and behind each place."""
    size = x.shape[axis]
    index = torch.arange(size, device=x.device)
    return x.index_select(axis, (index - 1).clamp(min=0)), x.index_select(axis, (index + 1).clamp(max=size - 1))
