"""The ascent as a plain loop: pixels and normalised steps, one image at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

PLAIN = {"parametrization": "pixel", "optimizer": "normalized", "jitter": 0, "scale": 0.0, "rotate": 0.0}
"""Fields of `FilterVisualization` that make it the loop."""

Measure = Callable[[Tensor], Tensor]


def looped(
    start: Tensor, of: Measure, *, steps: int, step_size: float, penalty: Measure | None = None, spread: float = 1.0
) -> tuple[Tensor, list[float]]:
    """x ← x + step_size · g / (std(g) + 1e-8), less the penalty's gradient; the last image and the objectives.

    Args:
        start: (1, C, …).
        of: Image (1, C, …) → a number.
        steps: How many.
        step_size: Of each.
        penalty: Image → a number.
        spread: The unit of steps and of the penalty's gradient.
    """
    x, told = start.clone(), []
    for _ in range(steps):
        x = x.detach().requires_grad_()
        value = of(x)
        (g,) = torch.autograd.grad(value, x)
        told.append(float(value.detach()))
        if penalty is not None:
            (held,) = torch.autograd.grad(penalty(x), x)
            g = g / (g.std() + 1e-8) - spread * held
        g = spread * g  # of the pixels in spreads
        x = x.detach() + spread * step_size * g / (g.std() + 1e-8)
    told.append(float(of(x).detach()))
    return x, told
