"""A model that cannot be copied, run itself: what it was is noted before, and given back on every exit."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from operator import is_not

import torch
from torch import Tensor, nn

from attribution.shadow import to_eval


@contextmanager
def kept(buffers: Iterable[Tensor]) -> Iterator[None]:
    """Buffers that a forward writes into (counters, caches) get their values back."""
    before = [(buffer, buffer._version, buffer.clone()) for buffer in buffers if not buffer.is_inference()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, version, values in before:
                if buffer.shape != values.shape:
                    buffer.resize_(values.shape)
                if buffer._version != version or not torch.equal(buffer, values):  # ``.data`` counts no version
                    buffer.copy_(values)


class Whole(nn.Module):
    """A model as one layer: it runs, and its parameters are known, but nothing in it can be named or hooked."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._parameters.update(model.named_parameters())
        self._buffers.update(model.named_buffers())
        vars(self)["_inner"] = model  # no child

    def forward(self, x: Tensor) -> object:
        """Whatever the model returns."""
        return vars(self)["_inner"](x)

    def __deepcopy__(self, memo: object) -> "Whole":
        raise TypeError("TorchScript has no modules to take apart")


@contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """The model itself in eval mode, what was compiled in it eager; its modules' attributes are given back."""
    modules = list(model.modules())
    training = [(module, module.training) for module in modules if hasattr(module, "training")]  # frozen TorchScript
    held = [vars(module) for module in modules]
    held += [row for own in held for name, row in own.items() if isinstance(row, dict) and "hooks" not in name]
    before = [dict(row) for row in held]
    lists = [(row, row[:]) for own in held for row in own.values() if isinstance(row, list)]
    try:
        to_eval(modules)
        for module in modules:
            if isinstance(children := vars(module).get("_modules"), dict) and "_orig_mod" in children:
                vars(module)["forward"] = children["_orig_mod"]  # hooks on compiled code may never fire
        yield
    finally:
        for module, mode in training:
            module.training = mode
        for row, items in zip(held, before, strict=True):
            for name in [name for name in row if name not in items]:
                del row[name]
            for name, value in items.items():
                if name not in row or row[name] is not value:
                    row[name] = value
            if list(row) != list(items):  # the order of parameters is that of an optimiser's state
                row.clear()
                row.update(items)
        for content, found in lists:
            if len(content) != len(found) or any(map(is_not, content, found)):
                content[:] = found
