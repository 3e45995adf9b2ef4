"""CAMs of one example after the other, in plain loops over channels and places."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Formula = Callable[[list[float], list[float]], list[float]]
"""Gradient and activation of one channel, place by place → what the channel adds at each place."""


def grad_cam(gradient: list[float], activation: list[float]) -> list[float]:
    total = 0.0
    for value in gradient:
        total += value
    return [total / len(gradient) * value for value in activation]


def layer_cam(gradient: list[float], activation: list[float]) -> list[float]:
    return [g * a if g > 0 else 0.0 for g, a in zip(gradient, activation, strict=True)]


def layer_cam_without_relu(gradient: list[float], activation: list[float]) -> list[float]:
    return [g * a for g, a in zip(gradient, activation, strict=True)]


def element_wise_cam(gradient: list[float], activation: list[float]) -> list[float]:
    return [max(g * a, 0.0) for g, a in zip(gradient, activation, strict=True)]


def xgrad_cam(gradient: list[float], activation: list[float]) -> list[float]:
    above, below = 0.0, 1e-7
    for g, a in zip(gradient, activation, strict=True):
        above += g * a
        below += a
    return [above / below * a for a in activation]


def grad_cam_plus_plus(gradient: list[float], activation: list[float]) -> list[float]:
    """Equation 19 to the letter."""
    total, weight = 0.0, 0.0
    for a in activation:
        total += a
    for g in gradient:
        alpha = g**2 / (2 * g**2 + total * g**3) if g else 0.0
        weight += alpha * max(g, 0.0)
    return [weight * a for a in activation]


FORMULAS: dict[str, Formula] = {
    "grad_cam": grad_cam,
    "layer_cam": layer_cam,
    "hires_cam": layer_cam_without_relu,
    "element_wise_cam": element_wise_cam,
    "xgrad_cam": xgrad_cam,
    "grad_cam_plus_plus": grad_cam_plus_plus,
}


def gradients(
    call: Callable[[], object], layer: nn.Module, scores: Callable[[object], Sequence[Tensor]], run: int = 0
) -> tuple[Tensor, list[Tensor]]:
    """What one run of a layer gives for one example, and the gradient of each score; autograd, one by one."""
    kept: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, given, output: kept.append(output))
    try:
        with torch.enable_grad():
            asked = scores(call())
            found = [torch.autograd.grad(score, kept[run], retain_graph=True)[0] for score in asked]
    finally:
        handle.remove()
    return kept[run].detach(), found


def cam(
    formula: Formula,
    values: Callable[[Tensor], Tensor],
    places: tuple[int, ...],
    activation: Tensor,
    found: Sequence[Tensor],
) -> Tensor:
    """(T, *places) of one example."""
    rows = []
    for gradient in found:
        total = [0.0] * values(activation).shape[1]
        for g, a in zip(values(gradient).tolist(), values(activation).tolist(), strict=True):
            for place, value in enumerate(formula(g, a)):
                total[place] += value
        rows.append(torch.tensor(total, dtype=torch.float64).reshape(places))
    return torch.stack(rows)
