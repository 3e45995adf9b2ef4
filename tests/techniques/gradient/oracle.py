"""The gradient techniques in plain loops: one example, one target, one point at a time."""

from collections.abc import Callable
from math import prod

import numpy as np
import torch
from torch import Tensor

from tests.techniques.gradient.cases import TENSORS, Case

Formula = Callable[[Case, int, int], list[Tensor]]
"""Of one example and one target: a raw map for each explained input."""


def gradients(case: Case, n: int, t: int, values: TENSORS) -> list[Tensor]:
    """∂S/∂x of the explained inputs, each (1, …)."""
    shown = [value.clone().requires_grad_() if value.is_floating_point() else value for value in values]
    score = case.scores(case.model(*[each.clone() for each in shown]), n)[t]
    return list(torch.autograd.grad(score, [shown[place] for place in case.explained]))


def score(case: Case, n: int, t: int, values: TENSORS) -> Tensor:
    with torch.no_grad():
        return case.scores(case.model(*[each.clone() for each in values]), n)[t]


def row(case: Case, n: int) -> TENSORS:
    return tuple(tensor[n : n + 1] for tensor in case.inputs)


def saliency(case: Case, n: int, t: int) -> list[Tensor]:
    return [gradient.abs() for gradient in gradients(case, n, t, row(case, n))]


def input_x_gradient(case: Case, n: int, t: int) -> list[Tensor]:
    found = gradients(case, n, t, row(case, n))
    return [row(case, n)[place] * gradient for place, gradient in zip(case.explained, found, strict=True)]


def integrated_gradients(steps: int, rule: str, baseline: float) -> Formula:
    def formula(case: Case, n: int, t: int) -> list[Tensor]:
        x = row(case, n)
        total = [torch.zeros_like(x[place]) for place in case.explained]
        for at, weight in quadrature(rule, steps):
            shown = tuple(v * at + baseline * (1 - at) if v.is_floating_point() else v for v in x)
            for index, gradient in enumerate(gradients(case, n, t, shown)):
                total[index] += weight * gradient
        return [(x[place] - baseline) * each for place, each in zip(case.explained, total, strict=True)]

    return formula


def quadrature(rule: str, steps: int) -> list[tuple[float, float]]:
    """Gauss and Legendre's places are the roots of the polynomial P, the weights 2 / ((1 - z²) P'(z)²), on [-1, 1]."""
    if rule == "gausslegendre":
        legendre = np.polynomial.legendre.Legendre.basis(steps)
        roots = legendre.roots()
        slope: list[float] = legendre.deriv()(roots).tolist()
        return [((1 + z) / 2, 1 / ((1 - z * z) * d * d)) for z, d in zip(roots.tolist(), slope, strict=True)]
    if rule == "riemann_trapezoid":
        ends = [0.5 if k in (0, steps - 1) else 1.0 for k in range(steps)]
        return [(k / (steps - 1), end / (steps - 1)) for k, end in enumerate(ends)]
    shift = {"riemann_left": 0.0, "riemann_middle": 0.5, "riemann_right": 1.0}[rule]
    return [((k + shift) / steps, 1 / steps) for k in range(steps)]


def maps(case: Case, formula: Formula, targets: int) -> dict[str, Tensor]:
    """(N, T, C, …) by explained input."""
    count = len(case.inputs[0])
    found = [[formula(case, n, t) for t in range(targets)] for n in range(count)]
    return {
        key: torch.stack([torch.cat([column[index] for column in line]) for line in found])
        for index, key in enumerate(case.keys())
    }


def off(raw: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference, as a part of the largest value of each map; infinite where keys or shapes differ."""
    if raw.keys() != expected.keys() or any(raw[key].shape != expected[key].shape for key in raw):
        return float("inf")
    assert all(prod(map_.shape) and bool(map_.any()) for map_ in expected.values())
    return max(((raw[key] - expected[key]).abs().max() / expected[key].abs().max()).item() for key in raw)
