"""What joins maps or runs a layer in an unusual way; each is (N, C, H, W) → a map."""

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.convnext import CNBlock
from torchvision.ops import SqueezeExcitation

from tests.drawn.layers import Shape

Inner = Callable[[Shape], nn.Module]
"""A branch that keeps height and width, for a shape."""


class Residual(nn.Module):
    """The sum with the input, in place or not; a 1×1 convolution where the channels differ."""

    def __init__(self, inner: nn.Module, before: int, after: int, *, in_place: bool) -> None:
        super().__init__()
        self.inner, self.in_place = inner, in_place
        self.short = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        short: Tensor = self.short(x)
        if not self.in_place:
            return y + short
        y += short
        return y


class Dense(nn.Module):
    """The input and what a branch makes of it, side by side."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.inner(x)], dim=1)


class Squeeze(nn.Module):
    """Channels multiplied by what their means say."""

    def __init__(self, channels: int, *, functional: bool) -> None:
        super().__init__()
        self.functional = functional
        self.mean, self.down, self.up = nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 3, 1), nn.Conv2d(3, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(2, 3), keepdim=True) if self.functional else self.mean(x)
        gate: Tensor = self.up(F.relu(self.down(mean))).sigmoid()
        return x * gate


class Shuffle(nn.Module):
    """One half of the channels goes through a branch, then both halves are mixed."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        y = torch.cat([left, self.inner(right)], dim=1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Upsample(nn.Module):
    """Larger, and back to the size it had or not."""

    def __init__(self, mode: str, *, back: bool) -> None:
        super().__init__()
        self.mode, self.back = mode, back
        self.none = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        corners = None if self.mode == "nearest" else False
        y = F.interpolate(x, scale_factor=2.0, mode=self.mode, align_corners=corners)
        return F.max_pool2d(y, 2) if self.back else y


class Crop(nn.Module):
    """A part of the map, by slices."""

    def __init__(self, top: int, left: int, *, step: int) -> None:
        super().__init__()
        self.top, self.left, self.step = top, left, step
        self.none = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, self.top :: self.step, self.left :]


class Reused(nn.Module):
    """The same layer twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(torch.tanh(self.layer(x)))
        return y


def block(draw: random.Random, shape: Shape, inner: Inner) -> nn.Module:
    """One of them for a map of this shape; ``inner`` draws its branch."""
    channels, height, width = shape
    ways: list[Callable[[], nn.Module]] = [
        lambda: _residual(draw, shape, inner),
        lambda: _residual(draw, shape, inner),
        lambda: Squeeze(channels, functional=draw.random() < 0.5),
        lambda: Reused(channels),
        lambda: Upsample(draw.choice(("nearest", "bilinear")), back=height * width > 100 or draw.random() < 0.5),
    ]
    ways += [lambda: CNBlock(channels, 0.5, 0.0), lambda: SqueezeExcitation(channels, 2)]
    if channels <= 12:
        ways.append(lambda: Dense(inner(shape)))
    if channels % 2 == 0:
        ways.append(lambda: Shuffle(_keeping(inner((channels // 2, height, width)), channels // 2)))
    if channels % 4 == 0 and height * width < 100:
        ways += 3 * [lambda: nn.PixelShuffle(2)]
    if min(height, width) > 4:
        ways.append(lambda: Crop(draw.randint(0, 2), draw.randint(0, 2), step=draw.choice((1, 1, 2))))
    return draw.choice(ways)()


def _residual(draw: random.Random, shape: Shape, inner: Inner) -> nn.Module:
    made = inner(shape)
    last = [*made.children()][-1]
    free = isinstance(last, nn.Conv2d | nn.BatchNorm2d)  # autograd can do without what it gives
    return Residual(made, shape[0], _channels(made, shape[0]), in_place=free and draw.random() < 0.6)


def _keeping(made: nn.Module, channels: int) -> nn.Module:
    after = _channels(made, channels)
    return made if after == channels else nn.Sequential(made, nn.Conv2d(after, channels, 1))


def _channels(made: nn.Module, before: int) -> int:
    convolutions = [module for module in made.modules() if isinstance(module, nn.Conv2d)]
    return convolutions[-1].out_channels if convolutions else before
