"""Groups of channels behind tiles: their variance is as exact as the model's own.

Tiles lie with channels last. For such maps torch takes E[x²] − E[x]² as the variance of a group, and loses
(mean / deviation)² · eps. Maps whose mean is ten deviations were called another model's, or were off tenfold.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attribution import ClassScore, Execution, Occlusion, explain
from attribution.lowered import nodes
from tests.conftest import noise
from tests.drawn import truth

TILES = Execution(incremental="always")
QUESTION, TARGET = Occlusion(window=4, stride=3, baseline=-1.0), torch.tensor([[0, 2]])


class Functional(nn.Module):
    """By a call of a function with numbers by name; a child makes it no leaf of a trace."""

    def __init__(self, groups: int, call: Callable[..., Tensor]) -> None:
        super().__init__()
        self.groups, self.call, self.none = groups, call, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x, num_groups=self.groups)


GROUPS: dict[str, Callable[[], nn.Module]] = {
    "single channels": lambda: nn.GroupNorm(4, 4),
    "one group": lambda: nn.GroupNorm(1, 4),
    "F.group_norm": lambda: Functional(4, F.group_norm),
    "torch.group_norm": lambda: Functional(2, torch.group_norm),
}


def net(name: str, mean: float) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first, second, last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4 * 11 * 13, 5)
    nn.init.constant_(second.bias, mean)  # type: ignore[arg-type]
    return nn.Sequential(first, nn.ReLU(), second, GROUPS[name](), nn.ReLU(), nn.Flatten(), last).eval()


def errors(name: str, mean: float) -> tuple[float, float, Any]:
    """By how much the loop and tiles, in float32, are off the loop in float64, and what the tiles' record says."""
    model, x = net(name, mean), noise(1, 3, 11, 13)
    expected, _ = truth.occlusion(copy.deepcopy(model).double(), x.double(), QUESTION, TARGET, "logit")
    loop, _ = truth.occlusion(model, x, QUESTION, TARGET, "logit")
    result = explain(model, x, QUESTION, target=ClassScore(TARGET, of="logit"), execution=TILES)
    off = [(found.double() - expected).abs().max().item() for found in (loop, result.map)]
    return off[0], off[1], result.provenance["engine"]


@pytest.mark.parametrize("mean", [3.0, 10.0])
@pytest.mark.parametrize("name", GROUPS)
def test_tiles_are_as_exact_as_the_loop(name: str, mean: float) -> None:
    loop, tiles, engine = errors(name, mean)
    assert engine == "incremental"
    assert tiles < 4 * loop


def test_with_channels_last_they_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "_of_groups", lambda *_: False)
    loop, tiles, engine = errors("one group", 3.0)
    assert engine == "dense" or tiles > 4 * loop
