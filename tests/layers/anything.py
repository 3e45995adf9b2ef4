"""Small float64 models whose layers give and take everything but (N, D, h, w)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Tokens(nn.Module):
    """A patch embedding, a class token, one block of attention: (N, 1 + h·w, D)."""

    def __init__(self, dim: int = 6) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, dim, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, dim))
        self.norm = nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, 3 * dim), nn.GELU(), nn.Linear(3 * dim, dim))
        self.same, self.head = nn.Identity(), nn.Linear(dim, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)
        y = self.norm(x)
        x = x + self.attention(y, y, value=y, need_weights=False)[0]
        x = self.same(x + self.mlp(x))
        return self.head(x[:, 0])  # type: ignore[no-any-return]


class SequenceFirst(nn.Module):
    """Tokens (L, N, D), as of OpenAI's CLIP."""

    def __init__(self, dim: int = 6) -> None:
        super().__init__()
        self.embed, self.norm, self.mlp = nn.Conv2d(3, dim, 4, 4), nn.LayerNorm(dim), nn.Linear(dim, dim)
        self.same, self.head = nn.Identity(), nn.Linear(dim, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).permute(2, 0, 1)
        x = self.same(self.mlp(self.norm(x)).tanh())
        return self.head(x.mean(dim=0))  # type: ignore[no-any-return]


class ChannelsLast(nn.Module):
    """(N, h, w, D), as of Swin."""

    def __init__(self, dim: int = 6) -> None:
        super().__init__()
        self.embed, self.norm = nn.Conv2d(3, dim, 4, 4), nn.LayerNorm(dim)
        self.block = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim), nn.Dropout(0.5))
        self.head = nn.Linear(dim, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.embed(x).permute(0, 2, 3, 1))
        return self.head((x + self.block(x)).mean(dim=(1, 2)))  # type: ignore[no-any-return]


class Mixer(nn.Module):
    """(N, D, h·w): flattened channels first."""

    def __init__(self, dim: int = 16, size: tuple[int, int] = (3, 5)) -> None:
        super().__init__()
        length = size[0] * size[1]
        self.embed, self.flat, self.mix = nn.Conv2d(3, dim, 4, 4), nn.Flatten(2), nn.Linear(length, length)
        self.head = nn.Linear(dim, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self.flat(self.embed(x))).tanh().mean(dim=2))  # type: ignore[no-any-return]


class Series(nn.Sequential):
    """(N, 2, T)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.relu = nn.Conv1d(2, 4, 3, padding=1), nn.ReLU(inplace=True)
        self.body = nn.Conv1d(4, 6, 3, stride=2)
        self.head = nn.Sequential(nn.ReLU(inplace=True), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 5))


class Volumes(nn.Sequential):
    """(N, 1, D, H, W)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.relu = nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(inplace=True)
        self.body = nn.Conv3d(4, 6, 3, stride=2)
        self.head = nn.Sequential(nn.ReLU(inplace=True), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(6, 5))


class Features(nn.Sequential):
    """(N, 7)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.tanh, self.body, self.relu = nn.Linear(7, 8), nn.Tanh(), nn.Linear(8, 6), nn.ReLU(inplace=True)
        self.head = nn.Linear(6, 5)


class Gate(nn.Module):
    """Takes a tensor and a factor by keyword, gives both."""

    def forward(self, x: Tensor, *, factor: Tensor) -> tuple[Tensor, Tensor]:
        return x * factor[:, :, None, None], factor


class Pair(nn.Module):
    """Takes two tensors by position."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x.mul_(2) + y


class Recurrent(nn.Module):
    """An LSTM over rows: a tuple of a tensor and a tuple; two arguments; keywords; a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pair, self.gate = nn.Conv2d(3, 4, 3), Pair(), Gate()
        self.lstm, self.head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = self.pair(x, x.tanh())
        x, _ = self.gate(x, factor=x.mean(dim=(2, 3)))
        _, (h, _) = self.lstm(x.mean(dim=2).transpose(1, 2))
        return self.head(h[0])  # type: ignore[no-any-return]


def made(kind: Callable[[], nn.Module], seed: int = 0) -> Any:
    """In eval mode, with the same random weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind().double().eval()
