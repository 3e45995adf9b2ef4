"""Occlusion in plain loops: one window, one example, one forward of the model itself at a time, in its own dtype."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

Interval = tuple[int, int]
Value = Callable[[Any, int], Tensor]
"""(what the model returns for one example, the place of that example in the batch) → (T,)."""


def starts(size: int, window: int, stride: int) -> list[Interval]:
    found, at = [], 0
    while True:
        found.append((at, min(at + window, size)))
        if at + window >= size:
            return found
        at += stride


def occlusion(
    call: Callable[..., Any],
    arguments: Sequence[Any],
    value: Value,
    *,
    covers: int,
    window: Sequence[int],
    stride: Sequence[int],
    baseline: Tensor,
    channels: Sequence[int] | None = None,
    region: Tensor | None = None,
) -> Tensor:
    """(N, T, *places) of the argument at ``covers``.

    Args:
        call: The model; it is given one example at a time.
        arguments: Tensors are cut to the example along their first axis; what else there is, is handed on.
        value: The scores of one example.
        covers: Position of the covered argument, (N, F) or (N, C, *places).
        window: Per place axis.
        stride: Likewise.
        baseline: Of the shape of the covered argument.
        channels: That are covered.
        region: Of places; windows that do not touch it are left out.
    """
    x = arguments[covers]
    places = x.shape[2:] if x.ndim > 2 else x.shape[1:]
    grid = list(product(*(starts(*each) for each in zip(places, window, stride, strict=True))))
    maps = []
    for n in range(len(x)):
        given = [a[n : n + 1].clone() if isinstance(a, Tensor) else a for a in arguments]
        with torch.no_grad():
            clean = value(call(*given), n)
        total = torch.zeros(len(clean), *places, dtype=clean.dtype)
        count = torch.zeros(places, dtype=clean.dtype)
        for bounds in grid:
            here: Any = tuple(slice(*each) for each in bounds)
            if region is not None and not bool(region[here].any()):
                continue
            covered = given[covers].clone()
            for channel in range(x.shape[1]) if x.ndim > 2 else [None]:
                if channel is None:
                    covered[(0, *here)] = baseline[(n, *here)]
                elif channels is None or channel in channels:
                    covered[(0, channel, *here)] = baseline[(n, channel, *here)]
            with torch.no_grad():
                found = value(call(*given[:covers], covered, *given[covers + 1 :]), n)
            total[(slice(None), *here)] += (clean - found).reshape(-1, *[1] * len(places))
            count[here] += 1
        maps.append(torch.where(count > 0, total / count.clamp(min=1), torch.zeros(())))
    return torch.stack(maps)


class Sequence1d(nn.Module):
    """(N, 2, L) → (N, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv1d(2, 5, 3, padding=1), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.conv(x).tanh().mean(dim=2))
        return found


class Volume(nn.Module):
    """(N, 2, D, H, W) → (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv3d(2, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.conv(x).relu().amax(dim=(2, 3, 4)))
        return found


class Features(nn.Module):
    """(N, F) → (N, 3)."""

    def __init__(self, features: int = 9) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(features, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.body(x).tanh())
        return found


class Siamese(nn.Module):
    """Two images of different sizes → (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(8, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        seen = [self.conv(x).tanh().mean(dim=(2, 3)) for x in (left, right)]
        found: Tensor = self.head(torch.cat([seen[0], seen[0] * seen[1]], dim=1))
        return found


class WithMetadata(nn.Module):
    """An image, what belongs to each example (N,), a table common to all and a number → (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.ages, self.head = nn.Conv2d(3, 4, 3), nn.Embedding(10, 4), nn.Linear(4, 3)

    def forward(self, image: Tensor, age: Tensor, table: Tensor, scale: float = 1.0) -> Tensor:
        seen = self.conv(image).tanh().mean(dim=(2, 3)) * (1 + self.ages(age)) + table.sum()
        found: Tensor = self.head(seen * scale)
        return found


class Segmentation(nn.Module):
    """(N, 3, H, W) → (N, 3, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.two(self.one(x).tanh())
        return found


def built(kind: Callable[[], nn.Module]) -> nn.Module:
    """In float64, its numbers always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return kind().double().eval()


def off(found: Tensor, expected: Tensor) -> float:
    """As a part of the map's largest value."""
    assert found.shape == expected.shape
    size = expected.abs().max()
    assert size > 1e-4, "a map without signal proves nothing"
    return float((found.double() - expected).abs().max() / size)


TOLERANCE = {"hooks": 1e-10, "captum": 1e-6}
"""Captum adds its windows up in float32."""
