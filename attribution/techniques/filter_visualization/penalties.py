"""What holds the ascent back: total variation, squared values, and functions of the user's."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from attribution.errors import InputError

Penalty = Callable[[Tensor], Tensor]
"""Images (B, C, …) in spreads → (B,), differentiable; what is small is preferred."""

_SOFT = 0.1


def penalty(images: Tensor, spread: float, *, tv: float, l2: float, own: Penalty | None = None) -> Tensor:
    """The gradient of the penalties, in units of the objective's: tv · Σ d / √(d² + 0.1²) + l2 · x + ∂own(x) / ∂x.

    x is the image in spreads, d its differences from the neighbours of a pixel, along each axis of places.

    Raises:
        InputError: ``own`` does not give one differentiable number per image.
    """
    x = images / spread
    total = l2 * x
    if tv:
        for dim in range(2, x.ndim):
            edge = x.diff(dim=dim)
            pull = edge / (edge.square() + _SOFT**2).sqrt()
            behind = [0, 0] * (x.ndim - 1 - dim)
            total = total + tv * (functional.pad(pull, [*behind, 1, 0]) - functional.pad(pull, [*behind, 0, 1]))
    return total if own is None else total + _gradient(own, x)


def _gradient(own: Penalty, x: Tensor) -> Tensor:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = own(x)
        if not isinstance(value, Tensor) or value.shape != x.shape[:1] or not value.requires_grad:
            given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InputError(
                f"FilterVisualization.penalty gives {given} for images {tuple(x.shape)}; expected one differentiable "
                "number per image, (B,)"
            )
        (g,) = torch.autograd.grad(value.sum(), x)
    return g
