"""What part of the image one neuron sees, found by experiment, so that nothing else need be computed."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attribution.errors import AttributionError
from attribution.execution import lost

Activation = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) → the layer's output (B, D, h, w)."""

_PROBES = 2
_EXACT = {torch.float64: 1e-10, torch.float32: 1e-4}


@dataclass(frozen=True)
class Crop:
    """A rectangle of the image that a neuron's value depends on alone, and the neuron's place in its activation."""

    rows: slice
    columns: slice
    neuron: tuple[int, int]

    def __str__(self) -> str:
        return f"rows {self.rows.start}:{self.rows.stop}, columns {self.columns.start}:{self.columns.stop}"


def find_crop(activation: Activation, image: Tensor, neuron: tuple[int, int]) -> Crop | None:
    """The crop on which a neuron has the value that it has on the whole image; ``None`` where there is none smaller.

    NaN spreads to whatever depends on it: rows of NaN that reach the neuron lie within its field. The distance of
    two neighbours' fields is the layer's stride, to a multiple of which the crop begins. The finding is then proved
    on random images: the same value and the same gradient inside, none outside.

    Args:
        activation: Of the layer; gradients can be taken through it.
        image: (1, C, H, W), of the size in question.
        neuron: Its row and column on the whole image.
    """
    height, width = image.shape[2:]
    with torch.no_grad():
        length = activation(image).shape[2:]
        sides = [_side(activation, image, axis, neuron, length[axis]) for axis in (0, 1)]
    if sides[0] is None or sides[1] is None:
        return None
    (top, bottom, row), (left, right, column) = sides[0], sides[1]
    if (bottom - top) * (right - left) >= height * width:
        return None
    crop = Crop(slice(top, bottom), slice(left, right), (row, column))
    return crop if _proved(activation, image, neuron, crop) else None


def _side(
    activation: Activation, image: Tensor, axis: int, neuron: tuple[int, int], length: int
) -> tuple[int, int, int] | None:
    """Along one axis: where the crop begins, where it ends, and the neuron's place in it."""
    span = _span(activation, image, axis, neuron)
    step = _stride(activation, image, axis, neuron, length, span)
    if span is None or step is None:
        return None
    start = span[0] // step * step
    return start, span[1], neuron[axis] - start // step


def _span(activation: Activation, image: Tensor, axis: int, neuron: tuple[int, int]) -> tuple[int, int] | None:
    """First row (or column) that reaches the neuron, and the one behind the last; ``None``: none does."""
    length = image.shape[2 + axis]

    def reached(upto: int, *, below: bool) -> bool:
        spoilt = image.clone().movedim(2 + axis, 0)
        spoilt[slice(0, upto) if below else slice(upto, length)] = float("nan")
        value = activation(spoilt.movedim(0, 2 + axis))[0, :, neuron[0], neuron[1]]
        return bool(value.isnan().any())

    if not reached(length, below=True):
        return None
    low, high = 0, length - 1  # the first row is the largest one such that rows before it do not reach
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (low, middle - 1) if reached(middle, below=True) else (middle, high)
    first, low, high = low, low + 1, length
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if reached(middle, below=False) else (low, middle)
    return first, low


def _stride(
    activation: Activation,
    image: Tensor,
    axis: int,
    neuron: tuple[int, int],
    length: int,
    span: tuple[int, int] | None,
) -> int | None:
    """How far the field moves from this neuron to the next; fields that the border cuts tell less than all."""
    moves = []
    for step in (-1, 1):
        at = neuron[axis] + step
        if span is None or not 0 <= at < length:
            continue
        other = _span(activation, image, axis, (at, neuron[1]) if axis == 0 else (neuron[0], at))
        if other is not None:
            moves += [abs(a - b) for a, b in zip(span, other, strict=True)]
    return max(moves, default=0) or None


def _proved(activation: Activation, image: Tensor, neuron: tuple[int, int], crop: Crop) -> bool:
    generator = torch.Generator().manual_seed(0)
    for _ in range(_PROBES):
        noise = torch.randn(image.shape, generator=generator, dtype=torch.float32, device="cpu").to(image)
        whole = noise.requires_grad_()
        try:
            seen = activation(whole)[0, :, neuron[0], neuron[1]]
            (g,) = torch.autograd.grad(seen.sum(), whole)
            part = whole.detach()[..., crop.rows, crop.columns].requires_grad_()
            found = activation(part)
            if found.ndim != 4 or crop.neuron[0] >= found.shape[2] or crop.neuron[1] >= found.shape[3]:
                return False
            same = found[0, :, crop.neuron[0], crop.neuron[1]]
            (inside,) = torch.autograd.grad(same.sum(), part)
        except (RuntimeError, AttributionError) as error:  # some models take one size only
            if lost(error):
                raise
            return False
        outside = g.clone()
        outside[..., crop.rows, crop.columns] = 0
        if outside.any() or not _close(seen, same) or not _close(g[..., crop.rows, crop.columns], inside):
            return False
    return True


def _close(a: Tensor, b: Tensor) -> bool:
    within = _EXACT.get(a.dtype, 1e-2)
    return bool((a - b).abs().max() <= within * a.abs().max())
