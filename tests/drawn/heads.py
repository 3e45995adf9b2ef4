"""From a map to logits."""

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.drawn.layers import Shape


class Mean(nn.Module):
    """Means, by a method of the tensor, and a matrix."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x.mean(dim=(2, 3)))
        return y


class Largest(Mean):
    """Maxima instead."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x.amax(dim=(2, 3)))
        return y


class Viewed(nn.Module):
    """All values, by ``view`` with sizes that the forward reads."""

    def __init__(self, values: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(values, classes)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x.contiguous().view(x.size(0), -1))
        return y


class Masked(nn.Module):
    """One class is ruled out by −10,000."""

    mask: Tensor

    def __init__(self, head: nn.Module, classes: int) -> None:
        super().__init__()
        self.head = head
        mask = torch.zeros(classes)
        mask[classes - 1] = -1e4
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(x)
        return y + self.mask


def head(draw: random.Random, shape: Shape, classes: int) -> nn.Module:
    channels, height, width = shape
    grid = (draw.randint(1, min(3, height)), draw.randint(1, min(3, width)))
    values = channels * height * width
    ways: list[Callable[[], nn.Module]] = [
        lambda: Mean(channels, classes),
        lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.3), nn.Linear(channels, classes)),
        lambda: Largest(channels, classes),
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(values, classes)),
        lambda: Viewed(values, classes),
        lambda: nn.Sequential(nn.Conv2d(channels, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        lambda: nn.Sequential(
            nn.AdaptiveAvgPool2d(grid),
            nn.Flatten(),
            nn.Linear(channels * grid[0] * grid[1], 7),
            nn.ReLU(inplace=True),
            nn.Linear(7, classes),
        ),
        lambda: nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(channels), nn.Linear(channels, classes)
        ),
    ]
    made = draw.choice(ways)()
    return Masked(made, classes) if draw.random() < 0.2 else made
