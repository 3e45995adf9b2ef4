"""Nets whose logits are linear in the mean of a layer, and nets that only look so; with what either must answer."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attribution import GradCAM, explain

D, K, SIZE = 6, 5, (9, 13)

FEW = [[0, 3], [4, 1], [2, 2]]

Forward = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    """A convolution with ReLU, as ``body``, and a tail to choose."""

    def __init__(self, forward: Forward, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, D, 3), nn.ReLU())
        self.pool, self.drop, self.linear = nn.AdaptiveAvgPool2d(1), nn.Dropout(0.5), nn.Linear(D, K)
        self.spare, self.point = nn.Linear(D, K), nn.Conv2d(D, K, 1, bias=False)
        self.mix, self.norm = nn.Conv2d(D, D, 1), nn.LayerNorm(D)
        self.of = forward
        source = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=source) / 2)
        self.eval().to(dtype)

    def tail(self, a: Tensor) -> Tensor:
        return self.of(self, a)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.body(x))


def head(net: Net, a: Tensor) -> Tensor:
    return net.linear(net.drop(net.pool(a).flatten(1)))  # type: ignore[no-any-return]


def with_auxiliary(net: Net, a: Tensor) -> Tensor:
    net.spare(a.mean((2, 3)))
    return head(net, a)


TRUE: dict[str, Forward] = {
    "pool, flatten, dropout, linear": head,
    "mean by hand": lambda net, a: net.linear(a.mean((2, 3))),
    "pool, 1 × 1 convolution": lambda net, a: net.point(net.pool(a)).flatten(1),
    "1 × 1 convolution, pool": lambda net, a: net.pool(net.point(a)).flatten(1),
    "average pool of the whole map": lambda net, a: net.linear(F.avg_pool2d(a, a.shape[2:]).flatten(1)),
    "another linear of the same size runs": with_auxiliary,
    "the other linear of the same size": lambda net, a: net.spare(a.mean((2, 3))),
}


class Clipped(torch.autograd.Function):
    """The identity, whose gradient is clipped."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g.clamp(-0.01, 0.01)


def twice_in_the_gradient(a: Tensor) -> Tensor:
    return a + (a - a.detach())


FOOLING: dict[str, Forward] = {
    "functional ReLU, without effect on the value": lambda net, a: head(net, F.relu(a)),
    "functional ReLU of what may be negative": lambda net, a: head(net, F.relu(a - 0.5)),
    "scaled before the pool": lambda net, a: head(net, a * 2),
    "logits scaled": lambda net, a: head(net, a) * 1.001,
    "one logit scaled": lambda net, a: head(net, a) * torch.tensor([1, 1, 1, 1.01, 1], dtype=a.dtype),
    "logits shifted by another use": lambda net, a: head(net, a) + net.spare(a.amax((2, 3))),
    "residual use": lambda net, a: head(net, a + net.mix(a)),
    "use in the gradient only": lambda net, a: head(net, twice_in_the_gradient(a)),
    "gradient clipped": lambda net, a: head(net, Clipped.apply(a)),
    "sum": lambda net, a: net.linear(a.sum((2, 3))),
    "softmax of the logits": lambda net, a: head(net, a).softmax(1),
    "normalised": lambda net, a: net.linear(net.norm(a.mean((2, 3)))),
    "channels swapped": lambda net, a: head(net, a.flip(1)),
}


def expected(net: Net, x: Tensor, targets: list[list[int]]) -> Tensor:
    """One autograd call per image and target, on the tail alone."""
    a = net.body(x).detach()
    rows = []
    for n, row in enumerate(targets):
        maps = []
        for c in row:
            one = a[n : n + 1].clone().requires_grad_()
            (g,) = torch.autograd.grad(net.tail(one)[0, c], one)
            maps.append((g.mean((2, 3), keepdim=True) * one.detach()).sum(1)[0])
        rows.append(torch.stack(maps))
    return torch.stack(rows)


def engine(net: nn.Module, x: Tensor, target: Any) -> tuple[Tensor, object]:
    result = explain(net, x, GradCAM(layers=("body",)), target=target)
    return result.raw["body"], result.provenance["engine body"]
