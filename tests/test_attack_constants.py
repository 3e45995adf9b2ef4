"""Whether images may go through a model together is asked again where a constant tensor may have changed the answer."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attribution import Execution, Occlusion, explain
from tests.conftest import BACKENDS, logit, noise

X = noise(3, 2, 6, 6, dtype=torch.float64)


class Mixing(nn.Module):
    """Logits from which a part of their mean over the batch is taken away; how much of it comes with the call."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(2, 3, 3, padding=1)

    def forward(self, x: Tensor, part: Any) -> Tensor:
        part = part[1500] if isinstance(part, np.ndarray) else part
        h = self.body(x).relu().mean((2, 3))
        return h * (1 + float(part) * h.mean(0))  # type: ignore[no-any-return]


def array(part: float) -> "np.ndarray[Any, Any]":
    """Long enough that its repr leaves the number out."""
    found = np.zeros(3001)
    found[1500] = part
    return found


@BACKENDS
@pytest.mark.parametrize("form", [torch.tensor, array, float])
def test_a_constant_that_mixes_rows_is_noticed(form: Any, backend: str) -> None:
    torch.manual_seed(0)
    model, within = Mixing().double().eval(), 1e-5 if backend == "captum" else 1e-12
    question = {"backend": backend, "target": logit(1), "execution": Execution(batch_size=7)}
    for part in (0.0, 5.0):
        found = explain(model, (X, form(part)), Occlusion(window=3, stride=3), **question)
        wanted = torch.empty(3, 1, 2, 2, dtype=X.dtype)
        for n, row, column in np.ndindex(3, 2, 2):
            covered = X[n : n + 1].clone()
            covered[..., 3 * row : 3 * row + 3, 3 * column : 3 * column + 3] = 0
            with torch.no_grad():
                wanted[n, 0, row, column] = (model(X[n : n + 1], part) - model(covered, part))[0, 1]
        (raw,) = found.raw.values()
        assert (raw[..., ::3, ::3] - wanted).abs().max() <= within, part
        assert ("rows" in found.provenance) == (part > 0)
