"""Models, photos and maps that the tests of metrics share."""

from typing import Any

import torch
from torch import Tensor, nn

from attribution import GradCAM, ValueScore
from attribution.metrics import (
    SRG,
    Curves,
    Deletion,
    Table,
    evaluate,
)
from attribution.testing import small_cnn
from tests.conftest import noise

SIZE = (17, 23)


CAM = GradCAM(layers=("body",))


CHEAP: dict[str, Any] = {"baselines": ("mean", "blur"), "metrics": (SRG(steps=4), Deletion(steps=4))}


def cnn() -> nn.Module:
    return small_cnn(dtype=torch.float64)


def photos(count: int = 3) -> Tensor:
    return noise(count, 3, *SIZE, dtype=torch.float64)


def pictures(count: int = 5) -> Tensor:
    return noise(count, 3, 17, 23)


def a_map(*shape: int, seed: int = 1) -> Tensor:
    return noise(*shape, dtype=torch.float64, seed=seed)


def doubles(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def only(found: dict[str, Curves]) -> Curves:
    (curves,) = found.values()
    return curves


def additive() -> tuple[nn.Module, Tensor, Tensor]:
    """Σ w · x + 1, three examples, and what each feature contributes against 0."""
    model = nn.Linear(12, 1, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(noise(1, 12, dtype=torch.float64, seed=5))
        model.bias.fill_(1.0)
    x = noise(3, 12, dtype=torch.float64, seed=6)
    return model, x, x * model.weight.detach()


def ordered(count: int = 12) -> Table:
    """A model whose best map is known, and that map reversed."""
    head = nn.Linear(36, 1, bias=False)
    with torch.no_grad():
        head.weight.copy_(noise(1, 36, seed=3).abs())
    x, weights = noise(count, 1, 6, 6, seed=2).abs() + 0.5, head.weight.detach().reshape(1, 1, 6, 6)
    maps = {"best": lambda inputs: inputs.tensor * weights, "reversed": lambda inputs: -inputs.tensor * weights}
    asked: dict[str, Any] = {"target": ValueScore(), "baselines": (0.0,), "metrics": (SRG(steps=6),)}
    return evaluate(nn.Sequential(nn.Flatten(), head), x, maps, batch_size=5, **asked)


SEEN: list[int] = []
"""How many images each forward of `Counted` was shown; beside the model, since a copy of it is run."""


class Counted(nn.Module):
    """Counts the images it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = cnn()

    def forward(self, x: Tensor) -> Tensor:
        SEEN.append(len(x))
        return self.inner(x)  # type: ignore[no-any-return]


class Segmenting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Conv2d(3, 4, 3, padding=1, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]
