"""Models that read a Python number which may be another one in the next call."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attribution.testing.models.deceptive.plain import Plain

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
    """What a hook multiplies gradients by on their way back, where the rest of the model is a mean and a matrix."""
    factors = [1.0]

    class Turned(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.body_relu = nn.Identity()

        def turned(self, x: Tensor) -> Tensor:
            factor = factors[0]
            if x.requires_grad:
                x.register_hook(lambda gradient: gradient * factor)
            return x

        def forward(self, x: Tensor) -> Tensor:
            *places, linear = self.get_submodule("head").children()
            x = self.get_submodule("body")(self.get_submodule("pool")(self.get_submodule("stem")(x).relu()))
            for module in places:
                x = module(x)
            logits: Tensor = linear(self.turned(x))
            return logits

    return Turned, lambda model, value: factors.__setitem__(0, -value)


NUMBERS: dict[str, Callable[[], Case]] = {
    "a class attribute": of_a_class,
    "a closure": of_a_closure,
    "a weight's value": of_a_weight,
    "a factor of gradients": of_a_gradient,
}
"""Values are clipped at ± the number, 9 at first; or gradients change their sign."""
