"""The scores of the inputs as they are."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attribution.attributor import Run
from attribution_hooks.chunks import in_parts


def clean(run: Run[Any], chunk: int) -> Tensor:
    """The matrix (N, K) that scores of the inputs as they are are picked from, ``chunk`` examples at once."""
    parts: list[Tensor] = []

    def work(examples: Sequence[int]) -> None:
        rows = torch.arange(examples[0], examples[-1] + 1, device=run.inputs.device)
        parts.append(run.matrix(run.forward(run.inputs[examples[0] : examples[-1] + 1]), rows))

    in_parts(range(len(run.inputs)), chunk, work, lambda: None)
    return torch.cat(parts)
