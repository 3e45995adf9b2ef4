"""Gradients and scores of a batch, as the model gives them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attribution.attributor import Run
from attribution.errors import ModelError
from attribution.inputs.inputs import Inputs


def wide(x: Tensor) -> torch.dtype:
    """That of raw maps."""
    return torch.promote_types(x.dtype, torch.float32)


def gradients(column: Tensor, leaves: Inputs, *, keep: bool) -> dict[str, Tensor]:
    """By explained input; one that the score does not depend on has a gradient of 0, and is left out.

    Raises:
        ModelError: The score depends on none.
    """
    explained = [leaves.values[name] for name in leaves.explained]
    found = torch.autograd.grad(column.sum(), explained, retain_graph=keep, allow_unused=True)
    if all(gradient is None for gradient in found):
        raise ModelError("no gradient of the score reaches the inputs; look for detach() in the model or the score")
    return {name: each for name, each in zip(leaves.explained, found, strict=True) if each is not None}


def stacked(columns: Sequence[Tensor], leaves: Inputs) -> dict[str, Tensor]:
    """(N, T, …) by explained input, in at least float32, from the scores (N,) of each target.

    Raises:
        ModelError: A score depends on none of the inputs.
    """
    found = [gradients(column, leaves, keep=t + 1 < len(columns)) for t, column in enumerate(columns)]
    blank = {name: torch.zeros_like(leaves.values[name]) for name in leaves.explained}
    whole = {name: torch.stack([each.get(name, zero) for each in found], dim=1) for name, zero in blank.items()}
    return {name: map_.to(wide(map_)) for name, map_ in whole.items()}


def scores(run: Run[Any], inputs: Inputs, rows: int, others: Sequence[Run[Any]] = ()) -> Tensor:
    """(N, T), without graph: the scores of all examples with these values, ``rows`` at once; the clean ones settle.

    The same output settles ``others`` as well.
    """
    examples = torch.arange(len(inputs), device=inputs.device)
    parts = []
    with torch.no_grad():
        for some in examples.split(rows):
            output = run.forward(inputs[some], some)
            parts.append(run.scores(output, some))
            for other in others:
                other.scores(output, some)
    return torch.cat(parts)
