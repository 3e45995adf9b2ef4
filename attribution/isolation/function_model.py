"""``FunctionModel``: a function of tensors as a model."""

from collections.abc import Callable
from typing import Any

from torch import nn

from attribution.errors import ModelError
from attribution.isolation.reach import Reach


class FunctionModel(nn.Module):
    """A function that is explained as a model is: ``FunctionModel(lambda x: net(x).softmax(1)[:, :10])``.

    The modules that the function uses (by its closure, defaults, globals, or the object that it is a method of) become
    modules of this one, in ``used``, so that they run in eval mode, their layers have names and their parameters tell
    device and dtype. They stay the user's own: the function runs itself under a lock, and its modules are given back as
    found (``provenance["isolation"]`` is ``"guarded"``).

    Args:
        function: Of what the model takes. It gives a row for each example.

    Raises:
        ModelError: It is a module already, a class, or cannot be called.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        if isinstance(function, nn.Module | type) or not callable(function):
            kind = "a module already" if isinstance(function, nn.Module) else repr(function)
            raise ModelError(f"FunctionModel takes a function of tensors, and found {kind}")
        self.function = function
        found = [module for module in Reach(self).modules if module is not self]
        inner = {id(part) for module in found for part in module.modules() if part is not module}
        self.used = nn.ModuleList(module for module in found if id(module) not in inner)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the function gives."""
        return self.function(*args, **kwargs)
