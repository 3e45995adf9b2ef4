"""A baseline of each example, of a model whose examples go through it one by one."""

import pytest
import torch
from torch import Tensor, nn

from attribution import InputError, Inputs, IntegratedGradients, Occlusion, explain
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


@BACKENDS
def test_rows_for_one_input_and_places_for_another_are_refused(backend: str) -> None:
    torch.manual_seed(0)
    model, image = Mixing().double().eval(), noise(3, 1, 3, 4, dtype=torch.float64)
    given, technique = (X, image), Occlusion(window=1, stride=1, baseline=BASELINE)
    with pytest.raises(InputError, match="input="):
        explain(Summed(model), given, technique, backend=backend, target=logit(1))


class Summed(nn.Module):
    """A model of features, given an image whose rows are added to them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        return self.model(x + image.sum((1, 2)))  # type: ignore[no-any-return]
