"""Integrated gradients from a baseline of each example, of a model whose examples go through it one by one."""

import pytest
import torch
from torch import Tensor, nn

from attribution import Inputs, IntegratedGradients, explain
from tests.conftest import BACKENDS, logit, noise

X, Y, BASELINE = (noise(3, 4, dtype=torch.float64, seed=seed) for seed in (0, 1, 2))


class Mixing(nn.Module):
    """Logits, each times one plus the mean over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        h = self.head(x if y is None else x * y).tanh()
        return h * (1 + h.mean(0))  # type: ignore[no-any-return]


@BACKENDS
@pytest.mark.parametrize("given", [X, Inputs.of((X, Y))], ids=["one", "two"])
def test_each_example_keeps_its_baseline(given: Tensor | Inputs, backend: str) -> None:
    torch.manual_seed(0)
    model = Mixing().double().eval()
    found = explain(model, given, IntegratedGradients(steps=30, baseline=BASELINE), backend=backend, target=logit(1))
    assert "rows" in found.provenance
    inputs = Inputs.of(given)
    with torch.no_grad():
        change = [
            row.into(model) - row.replaced({name: BASELINE[n : n + 1] for name in row.explained}).into(model)
            for n, row in enumerate(inputs[n : n + 1] for n in range(3))
        ]
    total = sum(map_.flatten(2).sum(2) for map_ in found.raw.values())
    assert isinstance(total, Tensor)
    assert (total[:, 0] - torch.cat(change)[:, 1]).abs().max() <= 1e-6
