"""Small float64 nets with a layer of every form, and where that layer's values lie, written out by hand."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tests.conftest import noise

CLASSES = 6


class Plain(nn.Module):
    """A convolution, a bend, a mean over places and a linear layer: series, images or volumes."""

    def __init__(self, conv: nn.Module, channels: int) -> None:
        super().__init__()
        self.conv, self.mix, self.head = conv, nn.Linear(channels, channels), nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        a = self.conv(x)
        bent = (a.tanh() + a.roll(1, -1) * a).flatten(2).mean(2)  # whose gradient differs from place to place
        return self.head(self.mix(bent).tanh())  # type: ignore[no-any-return]


class Vectors(nn.Module):
    """Layers (N, D) only."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(7, 5), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).tanh())  # type: ignore[no-any-return]


class Tokens(nn.Module):
    """Patches behind class tokens; ``first`` as older transformers, (L, N, D)."""

    def __init__(self, leading: int, first: bool, width: int = 6) -> None:
        super().__init__()
        self.first = first
        self.leading = nn.Parameter(torch.zeros(1, leading, width))
        self.embed, self.norm = nn.Conv2d(3, width, 4, stride=4), nn.LayerNorm(width)
        self.attend = nn.MultiheadAttention(width, 2, batch_first=not first)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.cat([self.leading.expand(len(x), -1, -1), self.embed(x).flatten(2).mT], dim=1)
        a = self.norm(tokens.transpose(0, 1) if self.first else tokens)
        mixed = self.attend(a, a, a)[0].tanh() + a * a
        return self.head(mixed.mean(0 if self.first else 1))  # type: ignore[no-any-return]


class Mixer(nn.Module):
    """(N, D, h·w): a grid that was flattened, channels first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.flat = nn.Conv2d(3, width, 4, stride=4), nn.Flatten(2)
        self.mix, self.head = nn.Linear(6, 6), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self.flat(self.conv(x))).tanh().mean(2))  # type: ignore[no-any-return]


class Segments(nn.Module):
    """(N, K, H, W) scores."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, CLASSES, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).tanh())  # type: ignore[no-any-return]


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """Weights large enough for a signal, the same in every run."""
    source = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        model = build().eval().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=source) * (0.4 if parameter.ndim > 1 else 1))
    return model


@dataclass(frozen=True)
class Case:
    """A model, its layer, and the layer as the loops read it.

    Attributes:
        build: The model.
        shape: Of one input.
        layer: Its name.
        values: From what the layer gives for one example to (D, places).
        places: Of the map.
        told: What the provenance says was inferred; empty where nothing had to be.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    layer: str
    values: Callable[[Tensor], Tensor]
    places: tuple[int, ...]
    told: str = ""

    def model(self) -> nn.Module:
        return seeded(self.build)

    def inputs(self, examples: int) -> Tensor:
        return noise(examples, *self.shape, dtype=torch.float64)


def _conv(kind: Any, *args: Any, **options: Any) -> Callable[[], nn.Module]:
    return lambda: Plain(kind(*args, **options), args[1])


CASES: dict[str, Case] = {
    "series": Case(_conv(nn.Conv1d, 3, 5, 3, stride=2), (3, 17), "conv", lambda a: a[0], (8,)),
    "image": Case(_conv(nn.Conv2d, 3, 5, 3), (3, 7, 11), "conv", lambda a: a[0].flatten(1), (5, 9)),
    "volume": Case(_conv(nn.Conv3d, 2, 5, 2), (2, 4, 5, 6), "conv", lambda a: a[0].flatten(1), (3, 4, 5)),
    "vectors": Case(Vectors, (7,), "body", lambda a: a[0][:, None], ()),
    "vectors of an image": Case(_conv(nn.Conv2d, 3, 5, 3), (3, 7, 11), "mix", lambda a: a[0][:, None], ()),
    "tokens": Case(
        partial(Tokens, 1, False), (3, 8, 12), "norm", lambda a: a[0, 1:].T, (2, 3), "(N, 1 + 2·3, D), inferred"
    ),
    "tokens, sequence first": Case(
        partial(Tokens, 1, True), (3, 8, 12), "norm", lambda a: a[1:, 0].T, (2, 3), "(1 + 2·3, N, D), inferred"
    ),
    "flattened grid": Case(partial(Mixer, 5), (3, 8, 12), "flat", lambda a: a[0], (2, 3), "(N, D, 2·3), inferred"),
    "flattened grid of as many channels as patches": Case(
        partial(Mixer, 6), (3, 8, 12), "flat", lambda a: a[0], (2, 3), "(N, D, 2·3), inferred"
    ),
}
