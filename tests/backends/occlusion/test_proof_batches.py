"""A rest of the network that answers otherwise about few rows is found out, however the windows fall into batches."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attribution import Execution, Occlusion, explain
from attribution_hooks.incremental.sink import Sink
from tests.conftest import logit, noise

pytestmark = pytest.mark.usefixtures("eager")
QUESTION = Occlusion(window=(5, 6), stride=(4, 3), baseline=-3.0)


class Head(nn.Module):
    """Its logits are off where it is given fewer than ``least`` rows."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least, self.weight = least, nn.Parameter(noise(5, 8, dtype=torch.float64))

    def forward(self, y: Tensor) -> Tensor:
        return F.linear(y if len(y) >= self.least else 0.99 * y, self.weight)


class Careful(nn.Module):
    """Knows its head, and gives it rows enough; a trace does not see that it does."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), Head(least)
        with torch.no_grad():
            for seed, part in enumerate(self.parameters()):
                part.copy_(noise(*part.shape, seed=seed) / 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(x).relu()).relu().mean((2, 3))
        if type(y) is Tensor and len(y) < self.head.least:
            return self.head(torch.cat([y] * self.head.least))[: len(y)]  # type: ignore[no-any-return]
        return self.head(y)  # type: ignore[no-any-return]


def off(least: int, images: int, size: int) -> float:
    """The largest error of a map, as a part of the largest value."""
    model, x = Careful(least).double().eval(), noise(images, 3, 17, 19, dtype=torch.float64)
    found = explain(model, x, QUESTION, target=logit(1), execution=Execution(batch_size=size)).map
    dense = Execution(incremental=False)
    exact = torch.cat([explain(model, image, QUESTION, target=logit(1), execution=dense).map for image in x.split(1)])
    return ((found - exact).abs().max() / exact.abs().max()).item()


@pytest.mark.parametrize("least", [2, 3])
@pytest.mark.parametrize("images", [2, 3, 5])
@pytest.mark.parametrize("size", [2, 3, 4, 5, 7, 16])
def test_no_batch_is_too_short_to_be_held_against_the_model(least: int, images: int, size: int) -> None:
    assert off(least, images, size) < 1e-9


def test_without_it_a_short_batch_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sink, "shortest", property(lambda self: []))
    for images, size in ((3, 4), (5, 3), (5, 4), (5, 6)):
        assert off(3, images, size) > 1e-2
