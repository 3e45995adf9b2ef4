"""Models that read a Python number which may be another one in the next call."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from attribution.testing.deceptive.plain import Plain

Case = tuple[Callable[[], nn.Module], Callable[[nn.Module, float], None]]
"""How to build such a model, and how to change the number of one that stands."""


def of_a_class() -> Case:
    """A class attribute."""

    class Limited(Plain):
        limit = 9.0

        def before(self, x: Tensor) -> Tensor:
            return x.clamp(-self.limit, self.limit)

    return Limited, lambda model, value: setattr(Limited, "limit", value)


def of_a_closure() -> Case:
    """A list outside."""
    limits = [9.0]

    class Limited(Plain):
        def before(self, x: Tensor) -> Tensor:
            return x.clamp(-limits[0], limits[0])

    return Limited, lambda model, value: limits.__setitem__(0, value)


def of_a_weight() -> Case:
    """The value of a parameter."""

    class Limited(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.limit = nn.Parameter(torch.tensor(9.0))

        def before(self, x: Tensor) -> Tensor:
            limit = self.limit.item()
            return x.clamp(-limit, limit)

    def change(model: nn.Module, value: float) -> None:
        with torch.no_grad():
            model.get_parameter("limit").fill_(value)

    return Limited, change


def of_a_gradient() -> Case:
    """What gradients are multiplied by on the way back, as in domain adaptation."""
    factors = [1.0]

    class Turned(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            turned: Tensor = _Times.apply(x, factors)
            return turned

    class Reversed(Plain):
        def __init__(self) -> None:
            super().__init__()
            mean, flat, linear = self.get_submodule("head").children()
            self.head = nn.Sequential(mean, flat, Turned(), linear)

    return Reversed, lambda model, value: factors.__setitem__(0, -value)


class _Times(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factors: list[float]) -> Tensor:
        ctx.factor = factors[0]
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * ctx.factor, None


NUMBERS: dict[str, Callable[[], Case]] = {
    "a class attribute": of_a_class,
    "a closure": of_a_closure,
    "a weight's value": of_a_weight,
    "a factor of gradients": of_a_gradient,
}
"""Values are clipped at ± the number, 9 at first; or gradients change their sign."""
