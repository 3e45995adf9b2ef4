"""Sums that stand for an integral from 0 to 1."""

from typing import Literal

import numpy as np

Rule = Literal["gausslegendre", "riemann_left", "riemann_middle", "riemann_right", "riemann_trapezoid"]
RULES: tuple[Rule, ...] = ("gausslegendre", "riemann_left", "riemann_middle", "riemann_right", "riemann_trapezoid")

_OFFSET = {"riemann_left": 0.0, "riemann_middle": 0.5, "riemann_right": 1.0}


def least(rule: Rule) -> int:
    """How many steps a rule needs."""
    return 2 if rule == "riemann_trapezoid" else 1


def nodes(rule: Rule, steps: int) -> list[tuple[float, float]]:
    """Places a[k] in [0, 1] and weights w[k], which add up to 1: the integral of f is about Σ over k of w[k] · f(a[k]).

    Args:
        rule: See `IntegratedGradients`.
        steps: How many; see `least`.
    """
    k = np.arange(steps)
    if rule == "gausslegendre":  # of numpy on [-1, 1], where the weights add up to 2
        at, weights = np.polynomial.legendre.leggauss(steps)
        at, weights = (1 + at) / 2, weights / 2
    elif rule == "riemann_trapezoid":
        at, weights = k / (steps - 1), np.where((k == 0) | (k == steps - 1), 0.5, 1.0) / (steps - 1)
    else:
        at, weights = (k + _OFFSET[rule]) / steps, np.full(steps, 1 / steps)
    return list(zip(at.tolist(), weights.tolist(), strict=True))
