"""How people write forwards: guards, numbers in attributes, values that a parent puts into a layer."""

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.drawn.layers import Shape


class Habit(nn.Module):
    """Not a leaf of a trace: what it does is its parent's forward."""

    def __init__(self) -> None:
        super().__init__()
        self.none = nn.Identity()


class AsksType(Habit):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(-1.5, 1.5) if isinstance(x, Tensor) else x


class AsksTorch(Habit):
    def forward(self, x: Tensor) -> Tensor:
        return x - 0.1 * x.relu() if torch.is_tensor(x) and x.dtype.is_floating_point else x


class AssertsShape(Habit):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape[1] == self.channels, "other channels"
        if x.dim() != 4:
            raise ValueError("no images")
        return x


class AsksSize(Habit):
    """Another branch for small maps."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 1.1 if x.shape[2] > 5 else x * 0.9


class Held(Habit):
    """Numbers in attributes, a list and a dict."""

    limits = (-1.0, 2.0)

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor, self.shifts, self.named = factor, [0.1, -0.2], {"slope": 0.3}

    def forward(self, x: Tensor) -> Tensor:
        y = x * self.factor + self.shifts[0] - self.shifts[1]
        return y.clamp(*self.limits) + self.named["slope"] * y


class Film(nn.Module):
    """A leaf that multiplies by what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma: Tensor | None = None
        self.held: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        gamma = self.held.get("gamma", self.gamma)
        assert gamma is not None
        return x * gamma


class Conditioned(nn.Module):
    """Puts a function of the map into its child, as an attribute or into a dict, before the child runs."""

    def __init__(self, channels: int, *, by_dict: bool) -> None:
        super().__init__()
        self.film, self.gate, self.by_dict = Film(), nn.Linear(channels, channels), by_dict

    def forward(self, x: Tensor) -> Tensor:
        gamma = self.gate(x.mean(dim=(2, 3)))[:, :, None, None]
        if self.by_dict:
            self.film.held["gamma"] = gamma
        else:
            self.film.gamma = gamma
        y: Tensor = self.film(x)
        self.film.gamma = None
        self.film.held.clear()
        return y


class Lasting(Conditioned):
    """The same, and leaves it there."""

    def forward(self, x: Tensor) -> Tensor:
        self.film.gamma = self.gate(x.mean(dim=(2, 3)))[:, :, None, None]
        y: Tensor = self.film(x)
        return y


def habit(draw: random.Random, shape: Shape) -> nn.Module:
    ways: list[Callable[[], nn.Module]] = [
        AsksType,
        AsksTorch,
        lambda: AssertsShape(shape[0]),
        lambda: AssertsShape(shape[0]),
        AsksSize,
        lambda: Held(draw.choice((0.7, -1.3))),
        lambda: Held(draw.choice((0.7, -1.3))),
        lambda: Conditioned(shape[0], by_dict=draw.random() < 0.5),
        lambda: Lasting(shape[0], by_dict=False),
    ]
    return draw.choice(ways)()
