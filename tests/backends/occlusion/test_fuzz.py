"""Small networks drawn at random from the layers that are local, and some that are not."""

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.convnext import CNBlock
from torchvision.ops import SqueezeExcitation

from attribution import Occlusion
from tests.backends.occlusion.truth import ask, error, image, net

pytestmark = pytest.mark.usefixtures("eager")

Maps = list[Tensor]


class Drawn(nn.Module):
    """A list of steps, each from some of the maps so far to one more; what no step reads is the output."""

    def __init__(self, seed: int, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.draw = random.Random(seed)
        self.layers = nn.ModuleList()
        self.sources: list[tuple[int, ...]] = []
        maps = [torch.zeros(1, channels, *size)]
        for _ in range(self.draw.randint(4, 12)):
            sources = self._sources(maps)
            layer = self._layer(*(maps[source] for source in sources))
            with torch.no_grad():
                made = layer(*(maps[source].clone() for source in sources))
            self.layers.append(layer)
            self.sources.append(sources)
            maps.append(made)
        del self.draw

    def _sources(self, maps: Maps) -> tuple[int, ...]:
        first = len(maps) - 1 if self.draw.random() < 0.7 else self.draw.randrange(len(maps))
        if self.draw.random() < 0.6:
            return (first,)
        alike = [index for index, other in enumerate(maps) if other.shape[2:] == maps[first].shape[2:]]
        return first, self.draw.choice(alike)

    def _layer(self, x: Tensor, y: Tensor | None = None) -> nn.Module:
        channels, height, width = x.shape[1:]
        if y is not None:
            joins: list[nn.Module] = [Cat()]
            if x.shape == y.shape or 1 in (x.shape[1], y.shape[1]):
                joins += [Add(), Multiply()]
            return self.draw.choice(joins)
        draw, small = self.draw.choice, min(height, width)
        kernel = (self.draw.randint(1, min(4, height)), self.draw.randint(1, min(4, width)))
        stride = (self.draw.randint(1, 2), self.draw.randint(1, 3))
        if small < 4:
            kernel, stride = (1, draw((1, min(2, width)))), (1, 1)
        pads = (self.draw.randint(0, kernel[0] // 2), self.draw.randint(0, kernel[1] // 2))
        groups = draw((1, channels))
        in_place = draw((True, False))
        conv = nn.Conv2d(channels, groups * draw((1, 2, 3)), kernel, stride, pads, groups=groups)
        dilated = nn.Conv2d(channels, 5, 2, padding=2, dilation=draw((2, 3)))
        options: list[nn.Module] = [
            conv,
            nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU(inplace=True)),
            nn.Conv2d(channels, 4, 1),
            dilated if small > 3 else nn.Identity(),
            nn.MaxPool2d(kernel, stride, pads, ceil_mode=draw((True, False))),
            nn.AvgPool2d(kernel, stride, pads, count_include_pad=draw((True, False))),
            nn.BatchNorm2d(channels),
            draw((nn.ReLU, nn.SiLU, nn.ReLU6, nn.Hardswish, nn.ELU))(inplace=in_place),
            draw((nn.Sigmoid, nn.GELU, nn.Identity, nn.Dropout))(),
            nn.ZeroPad2d(draw(((1, 0, 0, 2), (0, 1, 0, 1)))),
            CNBlock(channels, 0.5, 0.0),
        ]
        if self.draw.random() < 0.1:
            options = [SqueezeExcitation(channels, 2), nn.GroupNorm(1, channels), nn.ReflectionPad2d((1, 0, 0, 1))]
        return draw(options)

    def forward(self, x: Tensor) -> Tensor:
        maps, read = [x], {source for sources in self.sources for source in sources}
        for layer, sources in zip(self.layers, self.sources, strict=True):
            maps.append(layer(*(maps[source] for source in sources)))
        ends = [map_.flatten(1) for index, map_ in enumerate(maps) if index not in read]
        return torch.cat(ends, dim=1)


class Joining(nn.Module):
    """A child makes a join no leaf, so that it is taken apart."""

    def __init__(self) -> None:
        super().__init__()
        self.none = nn.Identity()


class Cat(Joining):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([x, y], dim=1)


class Add(Joining):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Multiply(Joining):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x.sigmoid() * y


def drawn(seed: int) -> tuple[nn.Module, Tensor, Occlusion]:
    choose = random.Random(f"question {seed}")
    channels, size = choose.choice((1, 3)), (choose.randint(9, 20), choose.randint(9, 20))
    window = choose.randint(1, size[0] // 2), choose.randint(1, size[1])
    technique = Occlusion(
        window=window,
        stride=(choose.randint(max(1, window[0] // 2), window[0]), choose.randint(max(1, window[1] // 2), window[1])),
        baseline=choose.choice((0.0, -1.0, tuple(float(c) for c in range(channels)))),
        score=choose.choice(("probability", "logit")),
        border=choose.choice(("cover", "drop")),
    )

    def body(s: Any, x: Tensor) -> Tensor:
        y: Tensor = s.drawn(x)
        return y

    model = net(body, lambda: {"drawn": Drawn(seed, channels, size)}, shape=(channels, *size))
    return model, image(choose.choice((1, 2)), channels, size), technique


def check(seed: int) -> tuple[float, str, str]:
    model, x, technique = drawn(seed)
    result = ask(model, x, technique)
    found = result.provenance
    return error(model, result, x, technique), str(found["engine"]), str(found.get("reason", ""))


@pytest.mark.parametrize("seed", range(12))
def test_drawn(seed: int) -> None:
    assert check(seed)[0] < 1e-12
