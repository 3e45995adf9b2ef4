"""Models that hold themselves: a hook, a layer or a function leads back to the whole."""

import threading
from collections.abc import Callable

from torch import Tensor, nn

from attribution.testing.models.deceptive.plain import Plain


def saves_by_a_method(model: nn.Module) -> None:
    """A hook on a layer is a method of the model."""
    model.get_submodule("stem").register_forward_hook(model.save)  # type: ignore[arg-type]


def knows_its_parent(model: nn.Module) -> None:
    """A layer holds the model."""
    model.get_submodule("stem").owner = [model]  # type: ignore[assignment]


def holds_functions(model: nn.Module) -> None:
    """A dict of functions over the model."""
    model.steps = {"stem": lambda x: model.get_submodule("stem")(x)}  # type: ignore[assignment]


def has_another_forward(model: nn.Module) -> None:
    """Its forward is a function over itself."""
    original = model.forward
    model.forward = lambda x: original(x)


def holds_a_lock(model: nn.Module) -> None:
    """Nothing that can be copied."""
    model.lock = threading.Lock()  # type: ignore[assignment]


class Saving(Plain):
    """Can keep what a layer gives, until the call ends."""

    saved: Tensor | None = None

    def save(self, module: nn.Module, args: object, output: Tensor) -> None:
        """A forward hook."""
        self.saved = output


SELF_REFERRING: tuple[Callable[[nn.Module], None], ...] = (
    saves_by_a_method,
    knows_its_parent,
    holds_functions,
    has_another_forward,
    holds_a_lock,
)
