"""Whether a function of a model's output gives each example a value of its own row, wherever that row stands."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attribution.errors import TargetError
from attribution.scores.moved import Unmoved, moved, taken
from attribution.scores.outputs import entry
from attribution.scores.score import Finding, Output, Score

ROUNDING = 64
"""Units in the last place of the largest value that a sum may be off at another place of the batch."""


def selectors(score: Score, output: Output, rows: int) -> Iterator[Finding]:
    """Functions given as ``output=`` which mix the rows of the clean output, of a score and of its sides."""
    for side in getattr(score, "sides", ()):
        yield from selectors(side, output, rows)
    selector = getattr(score, "output", None)
    if not callable(selector):
        return
    found = entry(output, selector)
    if not isinstance(found, Tensor) or not found.is_floating_point() or not found.ndim or len(found) != rows:
        return  # boxes by name, or what the score will refuse
    off = mixed(lambda each, _: entry(each, selector), output, rows)
    if off is not None:
        yield Finding(off, partial(_refused, score))


def _refused(score: Score) -> TargetError:
    name = type(score).__name__
    return TargetError(
        f"{name}.output gives a row of the model's output other values at another place of the batch or beside other "
        "rows: it mixes examples. Let it select, and compute from each example's own row"
    )


def mixed(function: Callable[[Any, int], Tensor], output: Any, rows: int) -> Tensor | None:
    """A flag: the function gives a row another value at another place of the batch, or beside other rows.

    The output is tried with its rows moved on by one, and with the first and the last row in every place. Of a single
    example the output, where it is a tensor, is tried behind a row of other numbers.

    Args:
        function: Of an output and the number of its rows; gives (B, …).
        output: The clean one.
        rows: B.

    Returns:
        A bool on the device of the values; ``None`` where nothing can be tried.
    """
    return _beside_another(function, output) if rows == 1 else _moved(function, output, rows)


def _moved(function: Callable[[Any, int], Tensor], output: Any, rows: int) -> Tensor | None:
    orders = ([*range(rows)], [rows - 1, *range(rows - 1)], [0] * rows, [rows - 1] * rows)
    try:
        given = [moved(output, order) for order in orders]
    except Unmoved:
        return None
    with torch.no_grad():
        plain, *others = (function(each, rows).nan_to_num(0.0) for each in given)
        if not plain.numel() or any(other.shape != plain.shape for other in others):
            return None
        eps = torch.finfo(plain.dtype).eps
        allowed = eps**0.5 * plain.abs() + ROUNDING * eps * plain.abs().amax()
        off = [
            (taken(plain, order) - other).abs() > taken(allowed, order)
            for order, other in zip(orders[1:], others, strict=True)
        ]
        return torch.stack(off).any()


def _beside_another(function: Callable[[Any, int], Tensor], output: Any) -> Tensor | None:
    if not isinstance(output, Tensor) or output.is_nested or str(output.layout) != "torch.strided":
        return None
    with torch.no_grad():
        alone = function(output.clone(), 1)  # a function may write into what it gets
        try:
            found = function(torch.cat([3 * output + 1, output]), 2)
            beside = found[1:].reshape(alone.shape) if len(found) == 2 else alone
        except Exception:  # a function of a single row, which fails on others wherever they come
            return None
        off: Tensor = (beside - alone).abs() > torch.finfo(alone.dtype).eps ** 0.5 * alone.abs()
        return off.any()
