"""``Network``: a small model drawn at random, the same for the same draws."""

import random

import torch
from torch import Tensor, nn

from tests.drawn.blocks import Dense, Residual, block
from tests.drawn.habits import Conditioned, habit
from tests.drawn.heads import head
from tests.drawn.layers import ChannelsLast, Shape, activation, convolution, norm, padding, pool

LARGEST = 400
"""Pixels of a map above which nothing enlarges it."""


class Network(nn.Module):
    """Drawn steps, one after the other, some joined with an earlier map; a head, or two, whose logits are added.

    Attributes:
        steps: In order.
        joins: Step → the earlier map that is joined to its output, and how.
        head: From the last map to logits.
        tail: The same from an earlier map, numbered ``tapped``.
    """

    def __init__(self, draw: random.Random, shape: Shape, classes: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList()
        self.joins: dict[int, tuple[int, str]] = {}
        shapes = [shape]
        for number in range(draw.randint(2, 7)):
            self.steps.append(_step(draw, shapes[-1], list(self.steps)))
            shapes.append(_after(self.steps[-1], shapes[-1]))
            if draw.random() < 0.3:
                shapes[-1] = self._join(draw, number, shapes)
        self.head = head(draw, shapes[-1], classes)
        self.tapped = draw.randrange(len(shapes))
        self.tail = head(draw, shapes[self.tapped], classes) if draw.random() < 0.2 else None

    def _join(self, draw: random.Random, number: int, shapes: list[Shape]) -> Shape:
        """The shape after a join of the last map with one of an earlier step, where there is one that fits."""
        channels, *size = shapes[-1]
        fitting = [index for index, other in enumerate(shapes[:-1]) if [*other[1:]] == size]
        if not fitting:
            return shapes[-1]
        source = draw.choice(fitting)
        more = shapes[source][0]
        ways = ["cat"] if channels + more <= 16 else []
        ways += ["add", "multiply"] if channels == more or 1 in (channels, more) else []
        if not ways:
            return shapes[-1]
        self.joins[number] = source, draw.choice(ways)
        together = channels + more if self.joins[number][1] == "cat" else max(channels, more)
        return together, shapes[-1][1], shapes[-1][2]

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for number, step in enumerate(self.steps):
            y = step(maps[-1])
            if number in self.joins:
                source, way = self.joins[number]
                other = maps[source]
                y = torch.cat([y, other], dim=1) if way == "cat" else y + other if way == "add" else y.sigmoid() * other
            maps.append(y)
        logits: Tensor = self.head(maps[-1])
        return logits if self.tail is None else logits + self.tail(maps[self.tapped])

    def extra_repr(self) -> str:
        return f"joins {self.joins}, tapped {self.tapped}"


def network(draw: random.Random, shape: Shape, classes: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw.randrange(2**31))
        return Network(draw, shape, classes).double().eval()


def _step(draw: random.Random, shape: Shape, before: list[nn.Module]) -> nn.Module:
    kind = draw.choice(("conv", "conv", "conv", "activation", "activation", "norm", "pool", "block", "block", "habit"))
    if not before and kind in ("activation", "norm"):
        kind = "conv"
    if kind == "conv":
        return _small(convolution(draw, shape), shape)
    if kind == "activation":
        return activation(draw, shape, in_place=_free(before[-1]))
    if kind == "norm":
        return norm(draw, shape)
    if kind == "pool":
        return padding(draw, shape) if draw.random() < 0.2 else pool(draw, shape)
    if kind == "habit":
        return habit(draw, shape)
    return _small(block(draw, shape, lambda inner: _branch(draw, inner)), shape)


def _branch(draw: random.Random, shape: Shape) -> nn.Module:
    """Keeps height and width."""
    channels, height, width = shape
    sizes = [size for size in (1, 3, 5) if size <= 2 * min(height, width)]
    size, out = draw.choice(sizes), draw.choice((channels, channels, 4))
    parts: list[nn.Module] = [nn.Conv2d(channels, out, size, padding=size // 2)]
    if draw.random() < 0.5:
        parts.append(norm(draw, (out, height, width)))
    parts.append(activation(draw, (out, height, width), in_place=_free(parts[-1])))
    if draw.random() < 0.4:
        parts.append(nn.Conv2d(out, out, (3, 1), padding=(1, 0), groups=draw.choice((1, out))))
    return nn.Sequential(*parts)


def _free(module: nn.Module) -> bool:
    """Whether autograd can do without what it gives, so that the next step may overwrite it."""
    free = nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d | nn.MaxPool2d | nn.AvgPool2d | Residual | Dense
    return isinstance(module, free) and not isinstance(module, ChannelsLast | Conditioned)


def _small(module: nn.Module, shape: Shape) -> nn.Module:
    """The module, or what makes maps smaller where it would make too large ones."""
    channels, height, width = _after(module, shape)
    return module if channels <= 16 and height * width <= LARGEST else nn.Conv2d(shape[0], 4, 2, stride=2)


@torch.no_grad()
def _after(module: nn.Module, shape: Shape) -> Shape:
    given: Tensor = module.eval()(torch.zeros(1, *shape))
    return given.shape[1], given.shape[2], given.shape[3]
