"""What part of the image one neuron sees, found by experiment, so that nothing else need be computed."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attribution.errors import AttributionError
from attribution.running.execution import lost
from attribution.running.precision import tf32
from attribution.running.upload import upload

Activation = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) → the layer's output (B, D, h, w)."""

_PROBES = 2
_EXACT = {torch.float64: 1e-10, torch.float32: 1e-4}
"""How far the value and the gradient on the crop may be from those on the whole image, as a part of the largest."""

_OUTSIDE = 16
"""How many ``eps`` of the largest gradient an accelerator's kernels may leave where a neuron does not look."""


@dataclass(frozen=True)
class Crop:
    """A rectangle of the image that a neuron's value depends on alone, and the neuron's place in its activation."""

    rows: slice
    columns: slice
    neuron: tuple[int, int]

    def __str__(self) -> str:
        return f"rows {self.rows.start}:{self.rows.stop}, columns {self.columns.start}:{self.columns.stop}"


def find_crop(activation: Activation, image: Tensor, neuron: tuple[int, int], at_once: int = 1) -> Crop | None:
    """The crop on which a neuron has the value that it has on the whole image; ``None`` where there is none smaller.

    NaN spreads to whatever depends on it: rows of NaN that reach the neuron lie within its field. The distance of
    two neighbours' fields is the layer's stride, to a multiple of which the crop begins. The finding is then proved
    on random images: the same value and the same gradient inside, none outside.

    Args:
        activation: Of the layer; gradients can be taken through it.
        image: (1, C, H, W), of the size in question.
        neuron: Its row and column on the whole image.
        at_once: Images per forward. One needs the fewest forwards of one image; more need fewer looks at a device.
    """
    height, width = image.shape[2:]
    with torch.no_grad():
        length = activation(image).shape[2:]
        sides = [_side(activation, image, axis, neuron, length[axis], at_once) for axis in (0, 1)]
    if sides[0] is None or sides[1] is None:
        return None
    (top, bottom, row), (left, right, column) = sides[0], sides[1]
    if (bottom - top) * (right - left) >= height * width:
        return None
    crop = Crop(slice(top, bottom), slice(left, right), (row, column))
    return crop if _proved(activation, image, neuron, crop) else None


def _side(
    activation: Activation, image: Tensor, axis: int, neuron: tuple[int, int], length: int, at_once: int
) -> tuple[int, int, int] | None:
    """Along one axis: where the crop begins, where it ends, and the neuron's place in it."""
    beside = [neuron[axis] + step for step in (0, -1, 1) if 0 <= neuron[axis] + step < length]
    neurons = [(at, neuron[1]) if axis == 0 else (neuron[0], at) for at in beside]
    span, *others = _Probes(activation, image, axis, neurons, at_once).spans()
    if span is None:
        return None
    # Fields that the border cuts tell less of the stride than all of them.
    moves = [abs(a - b) for other in others if other is not None for a, b in zip(span, other, strict=True)]
    step = max(moves, default=0)
    if not step:
        return None
    start = span[0] // step * step
    return start, span[1], neuron[axis] - start // step


_Probe = tuple[bool, int]
"""Rows (or columns) that are NaN: those before the number, or from it on."""


class _Probes:
    """Which of some neurons is reached by which rows (or columns) of NaN; each probe tells of all of them."""

    def __init__(
        self, activation: Activation, image: Tensor, axis: int, neurons: list[tuple[int, int]], at_once: int
    ) -> None:
        self._activation, self._image, self._axis, self._at_once = activation, image, axis, at_once
        self._neurons = neurons
        self._length = image.shape[2 + axis]
        self._seen: dict[_Probe, list[bool]] = {}

    def spans(self) -> list[tuple[int, int] | None]:
        """For each neuron the first row that reaches it, and the one behind the last; ``None``: none does.

        The first row is the largest number such that the rows before it do not reach; the other one is the smallest
        such that those from it on do not. Each lies between two ends that come closer with every look.
        """
        every = range(len(self._neurons))
        ends = {(index, True): [0, self._length - 1] for index in every}
        ends |= {(index, False): [1, self._length] for index in every}
        look = [(True, self._length)]
        while open_ := [(key, low, high) for key, (low, high) in ends.items() if low < high]:
            apart = dict.fromkeys((before, low, high) for (_, before), low, high in open_)
            each = max(1, self._at_once // len(apart))
            cuts = {question: _cuts(*question, each) for question in apart}
            self._look([*look, *((before, cut) for (before, low, high) in apart for cut in cuts[before, low, high])])
            look = []
            for (index, before), low, high in open_:
                for cut in cuts[before, low, high]:
                    if before:
                        low, high = (low, min(high, cut - 1)) if self._seen[True, cut][index] else (max(low, cut), high)
                    else:
                        low, high = (
                            (max(low, cut + 1), high) if self._seen[False, cut][index] else (low, min(high, cut))
                        )
                ends[index, before] = [low, high]
        self._look(look)
        reached = self._seen[True, self._length]
        return [(ends[index, True][0], ends[index, False][0]) if reached[index] else None for index in every]

    def _look(self, probes: list[_Probe]) -> None:
        new = [probe for probe in dict.fromkeys(probes) if probe not in self._seen]
        for first in range(0, len(new), self._at_once):
            part = new[first : first + self._at_once]
            place = torch.arange(self._length, device="cpu")
            spoilt = torch.stack([place < cut if before else place >= cut for before, cut in part])
            shape = (len(part), 1, -1, 1) if self._axis == 0 else (len(part), 1, 1, -1)
            images = self._image.masked_fill(upload(spoilt.view(shape), self._image.device), float("nan"))
            activation = self._activation(images)
            values = torch.stack([activation[:, :, row, column] for row, column in self._neurons], dim=1)
            self._seen.update(zip(part, values.isnan().any(dim=2).tolist(), strict=True))


def _cuts(before: bool, low: int, high: int, number: int) -> list[int]:
    """So many numbers that part what lies between two ends, of which one may be no answer itself."""
    number = min(number, high - low)
    steps = [(high - low) * (index + 1) // (number + 1) for index in range(number)]
    return sorted({high - step if before else low + step for step in steps})


def _proved(activation: Activation, image: Tensor, neuron: tuple[int, int], crop: Crop) -> bool:
    generator = torch.Generator().manual_seed(0)
    alike: list[Tensor] = []
    for _ in range(_PROBES):
        noise = torch.randn(image.shape, generator=generator, dtype=torch.float32, device="cpu")
        whole = upload(noise, image.device, image.dtype).requires_grad_()
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
        left = _left(g) * g.abs().max()
        alike += [
            outside.abs().max() <= left,  # NaN is not either
            _close(seen, same).to(image.device),
            _close(g[..., crop.rows, crop.columns], inside),
        ]
    return bool(torch.stack(alike).all())


def _left(g: Tensor) -> float:
    """Kernels that transform tiles of an image (Winograd, FFT) give rounding where others give zero."""
    return 0.0 if g.device.type == "cpu" else _OUTSIDE * torch.finfo(tf32(g, "convolution") or g.dtype).eps


def _close(a: Tensor, b: Tensor) -> Tensor:
    within = _EXACT.get(tf32(a) or a.dtype, 1e-2)
    return (a - b).abs().max() <= within * a.abs().max()
