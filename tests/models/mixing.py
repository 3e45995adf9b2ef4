"""Models whose answer to an image depends on the images beside it, and models of which that only seems so."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Net(nn.Module):
    """Two convolutions and a head; ``mix`` is what happens to a batch of maps (N, 6, h, w) between them."""

    def __init__(self, mix: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.stem, self.body = nn.Conv2d(3, 6, 3, dtype=torch.float64), nn.Conv2d(6, 5, 3, dtype=torch.float64)
            self.head = nn.Linear(5, 4, dtype=torch.float64)
        self.mix = mix

    def forward(self, x: Tensor) -> Any:
        y = self.mix(self.stem(x).relu())
        return self.head(self.body(y).relu().mean((2, 3)))


class Named(Net):
    """Says the same in a dict, beside something that mixes nothing."""

    def forward(self, x: Tensor) -> Any:
        return {"mean": x.mean((1, 2, 3)), "scores": (super().forward(x), None)}


class Masked(Net):
    """A class that is never given, by a score far below all others."""

    def forward(self, x: Tensor) -> Any:
        return torch.cat([super().forward(x), torch.full((len(x), 1), -1e4, dtype=x.dtype)], dim=1)


def batch_attention(y: Tensor) -> Tensor:
    flat = y.mean((2, 3))
    return y + ((flat @ flat.T).softmax(dim=1) @ flat)[..., None, None]


def ghost_batches(y: Tensor) -> Tensor:
    """Statistics of two rows at a time."""
    return torch.cat([F.batch_norm(part, None, None, training=True) for part in y.split(2)])


def before(y: Tensor) -> Tensor:
    """Each row and the one before it."""
    return y + 0.3 * torch.cat([torch.zeros_like(y[:1]), y[:-1]])


def scaled(y: Tensor) -> Tensor:
    """Whole numbers of 255 steps, as a dynamically quantised layer scales them: the smallest change here."""
    step = y.detach().abs().max() / 127
    return (y / step + (torch.round(y / step) - y / step).detach()) * step


MIXES: dict[str, Callable[[], nn.Module]] = {
    "batch norm without statistics": lambda: Net(nn.BatchNorm2d(6, track_running_stats=False, dtype=torch.float64)),
    "mean of the batch": lambda: Net(lambda y: y - 0.5 * y.mean(0)),
    "attention over the batch": lambda: Net(batch_attention),
    "ghost batch norm": lambda: Net(ghost_batches),
    "scale of the batch": lambda: Net(scaled),
    "turned round": lambda: Net(lambda y: y.flip(0)),
    "rolled": lambda: Net(lambda y: y.roll(1, 0)),
    "sums of rows before": lambda: Net(lambda y: y.cumsum(0)),
    "sums of rows after": lambda: Net(lambda y: y.flip(0).cumsum(0).flip(0)),
    "the row before": lambda: Net(before),
    "less the first row": lambda: Net(lambda y: y - 0.5 * y[:1]),
    "less the last row": lambda: Net(lambda y: y - 0.5 * y[-1:]),
    "divided by the number of rows": lambda: Net(lambda y: y / len(y)),
    "a thousandth, beside a masked class": lambda: Masked(lambda y: y + 1e-3 * y.mean(0)),
}

ALONE: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: Net(lambda y: y),
    "normalised by itself": lambda: Net(lambda y: F.instance_norm(y)),
    "a masked class": lambda: Masked(lambda y: y),
    "random numbers": lambda: Net(lambda y: F.dropout(y, 0.5, training=True)),
}
