"""One layer drawn for a map of a known shape: convolutions, pools, paddings, norms, activations."""

import random
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Shape = tuple[int, int, int]
"""Channels, height, width."""

Mode = Literal["zeros", "reflect", "replicate", "circular"]
_MODES: tuple[Mode, ...] = ("zeros", "zeros", "zeros", "reflect", "replicate", "circular")


class Call(nn.Module):
    """A function of one map; a child makes it no leaf of a trace."""

    def __init__(self, name: str, function: Callable[[Tensor], Tensor], *, leaf: bool) -> None:
        super().__init__()
        self.name, self.function = name, function
        if not leaf:
            self.none = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return self.name


def kernel(draw: random.Random, side: int, most: int = 5) -> int:
    return draw.randint(1, min(most, side))


def convolution(draw: random.Random, shape: Shape) -> nn.Module:
    """Any kernel that fits; strided, dilated, grouped, depthwise, padded in every way, transposed, with bias or not."""
    channels, height, width = shape
    out, bias = draw.choice((2, 4, 6)), draw.random() < 0.6
    way = draw.choice(("plain", "plain", "plain", "pointwise", "depthwise", "grouped", "dilated", "same", "transposed"))
    if way == "pointwise":
        return nn.Conv2d(channels, out, 1, stride=draw.choice((1, 1, 2)), bias=bias)
    if way == "transposed":
        up = draw.choice((1, 2)) if height * width < 200 else 1
        size = (draw.randint(1, 3), draw.randint(1, 3))
        return nn.ConvTranspose2d(channels, out, size, up, output_padding=draw.randint(0, up - 1), bias=bias)
    size = (kernel(draw, height), kernel(draw, width))
    if way == "same":
        size = (size[0] | 1, size[1] | 1)
        return nn.Conv2d(channels, out, size, padding="same", bias=bias)
    stride = (draw.choice((1, 1, 2, 3)), draw.choice((1, 1, 2)))
    padding = (draw.randint(0, size[0] // 2), draw.randint(0, size[1] // 2))
    mode: Mode = draw.choice(_MODES)
    groups = 1
    if way == "depthwise":
        groups, out = channels, channels * draw.choice((1, 2))
    elif way == "grouped" and channels % 2 == 0:
        groups = 2
    dilation = 1
    if way == "dilated" and min(height, width) > 4:
        size, padding, dilation = (
            (2, draw.choice((1, 2))),
            (draw.randint(0, 2), draw.randint(0, 2)),
            draw.choice((2, 3)),
        )
        mode = "zeros"
    return nn.Conv2d(channels, out, size, stride, padding, dilation, groups, bias, mode)


def pool(draw: random.Random, shape: Shape) -> nn.Module:
    """Maximum, average or adaptive, with odd sizes, padding, ceilings and dilation."""
    _, height, width = shape
    size = (kernel(draw, height, 4), kernel(draw, width, 4))
    stride = draw.choice((None, 1, 2, (2, 1), 3))
    padding = (draw.randint(0, size[0] // 2), draw.randint(0, size[1] // 2))
    ceil = draw.random() < 0.4
    way = draw.choice(("max", "max", "avg", "avg", "adaptive", "dilated"))
    if way == "max" or (way == "dilated" and min(height, width) < 5):
        return nn.MaxPool2d(size, stride, padding, ceil_mode=ceil)
    if way == "dilated":
        return nn.MaxPool2d(2, draw.choice((1, 2)), dilation=draw.choice((2, 3)), ceil_mode=ceil)
    if way == "avg":
        divisor = draw.choice((None, None, None, 3))
        include = draw.random() < 0.5
        return nn.AvgPool2d(size, stride, padding, ceil_mode=ceil, count_include_pad=include, divisor_override=divisor)
    adaptive = (draw.randint(1, height), draw.choice((None, draw.randint(1, width))))
    return draw.choice((nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d))(adaptive)


def padding(draw: random.Random, shape: Shape) -> nn.Module:
    """Another number of pixels on each side."""
    sides = (draw.randint(0, 2), draw.randint(0, 2), draw.randint(0, 2), draw.randint(0, 2))
    ways: list[nn.Module] = [nn.ZeroPad2d(sides), nn.ConstantPad2d(sides, 0.3), nn.ReplicationPad2d(sides)]
    ways.append(Call(f"F.pad {sides}", lambda x: F.pad(x, sides), leaf=draw.random() < 0.3))
    if min(shape[1:]) > 2:
        ways.append(nn.ReflectionPad2d(sides))
    return draw.choice(ways)


def norm(draw: random.Random, shape: Shape) -> nn.Module:
    """Of the batch with statistics far from any batch's, of groups, of channels, of one image."""
    channels, height, width = shape
    affine = draw.random() < 0.7
    if height * width < 6 or draw.random() < 0.6:
        return _odd(nn.BatchNorm2d(channels, affine=affine), draw)
    groups = draw.choice([count for count in (1, 2, channels) if channels % count == 0])
    ways: list[nn.Module] = [nn.GroupNorm(groups, channels, affine=affine), nn.InstanceNorm2d(channels, affine=affine)]
    ways += [nn.LocalResponseNorm(2), ChannelsLast(nn.LayerNorm(channels))]
    return draw.choice(ways)


def _odd(norm: nn.BatchNorm2d, draw: random.Random) -> nn.BatchNorm2d:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    generator = torch.Generator().manual_seed(draw.randrange(2**31))
    norm.running_mean.normal_(generator=generator)
    norm.running_var.uniform_(0.1, 2, generator=generator)
    if norm.affine:
        for parameter in norm.parameters():
            parameter.data.normal_(generator=generator)
    return norm


class ChannelsLast(nn.Module):
    """A layer on the last axis, as in ConvNeXt."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x.permute(0, 2, 3, 1))
        return y.permute(0, 3, 1, 2)


_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "F.relu": F.relu,
    "torch.relu": torch.relu,
    ".relu()": lambda x: x.relu(),
    "F.silu": F.silu,
    "x · sigmoid(x)": lambda x: x * torch.sigmoid(x),
    ".clamp": lambda x: x.clamp(-1.0, 2.0),
    "tanh": torch.tanh,
    "F.leaky_relu": F.leaky_relu,
    "0.5x + 0.1": lambda x: 0.5 * x + 0.1,
    ".abs()": lambda x: x.abs(),
}
_IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "F.relu(inplace)": lambda x: F.relu(x, inplace=True),
    ".relu_()": lambda x: x.relu_(),
    ".mul_": lambda x: x.mul_(0.5),
    ".clamp_": lambda x: x.clamp_(min=-0.5),
    ".add_": lambda x: x.add_(0.25),
}


def activation(draw: random.Random, shape: Shape, *, in_place: bool) -> nn.Module:
    """A module or a function; ``in_place``: it may overwrite its input, which nobody needs for a gradient."""
    leaf = draw.random() < 0.2
    if draw.random() < 0.35:
        chosen = _IN_PLACE if in_place and draw.random() < 0.5 else _FUNCTIONS
        name = draw.choice([*chosen])
        return Call(name, chosen[name], leaf=leaf)
    writes = in_place and draw.random() < 0.6
    ways: list[Callable[[], nn.Module]] = [
        lambda: nn.ReLU(inplace=writes),
        lambda: nn.ReLU(inplace=writes),
        lambda: nn.ReLU6(inplace=writes),
        lambda: nn.LeakyReLU(0.1, inplace=writes),
        lambda: nn.SiLU(inplace=writes),
        lambda: nn.Hardswish(inplace=writes),
        lambda: nn.ELU(inplace=writes),
        nn.GELU,
        nn.Sigmoid,
        nn.Softplus,
        nn.Identity,
        nn.Dropout,
        lambda: nn.PReLU(shape[0]),
        lambda: nn.Softmax(dim=1),
    ]
    return draw.choice(ways)()
