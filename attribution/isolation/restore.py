"""A model that cannot be copied, run itself: what it was is noted before, and given back on every exit."""

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from operator import attrgetter, is_not
from typing import Any

import torch
from torch import Tensor, nn

from attribution.errors import AttributionError, ModelError
from attribution.isolation.notes import Notes, notes
from attribution.isolation.undo import Undo
from attribution.running.execution import out_of_memory
from attribution.running.values import Values

_REGISTRIES = frozenset(vars(nn.Module()))
_REQUIRES_GRAD = attrgetter("requires_grad")


class _Turn:
    """One lock for all models, since two may share modules; and whose models are being run."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.open: dict[int, tuple[int, Callable[[], None]]] = {}  # thread, and what gives its model back

    def take(self, undo: Undo) -> None:
        """Wait for the lock, and hold it until ``undo`` runs."""
        lock, inner, held = self.lock, self.lock._is_owned(), list[bool]()  # type: ignore[attr-defined]

        def release() -> None:
            if inner and held:  # an outer run of this thread goes on
                held.clear()
                lock.release()
            while not inner and lock._is_owned():  # type: ignore[attr-defined]
                lock.release()

        undo.add(release)
        lock.acquire()
        held.append(True)

    def renew(self) -> None:
        """In the child of a fork: other threads are gone, and what they did to their models is given back."""
        mine = threading.get_ident()
        if not self.lock._is_owned():  # type: ignore[attr-defined]
            self.lock = threading.RLock()
        for key, (thread, restore) in [*self.open.items()]:
            if thread != mine:
                restore()
                del self.open[key]


turn = _Turn()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=turn.renew)


def run_itself(
    undo: Undo, model: nn.Module, beside: Iterable[nn.Module] = (), held: Sequence[dict[Any, Any] | list[Any]] = ()
) -> None:
    """Let a model be run itself until ``undo`` runs: eval mode by its flags, and what was compiled in it eager.

    Its modules' flags, attributes, hooks and buffers are given back.

    Args:
        undo: Of the run. The lock is the caller's to take.
        model: Whose modules go into eval mode.
        beside: Modules that it runs without having registered them. They keep their mode, as after ``model.eval()``.
        held: What its hooks write into; of a copy that is known.
    """
    held = [*held, *notes(model).get("held", ())]
    modules = list(model.modules())
    every = [*modules, *beside]
    plain = [value for module in every for name, value in vars(module).items() if name not in _REGISTRIES]
    buffers = [buffer for module in every for buffer in module.buffers()]
    steps = [
        Values([*buffers, *_held(plain, Tensor), *_held(held, Tensor)]).give_back,
        flags_of([parameter for module in every for parameter in module.parameters(recurse=False)]),
        _array_values(plain),
        attributes_of(every, beside=held),
    ]

    def restore() -> None:
        for step in reversed(steps):
            step()

    key = id(restore)
    undo.add(lambda: turn.open.pop(key, None) and None)
    undo.add(restore)
    turn.open[key] = threading.get_ident(), restore
    to_eval(modules)
    name_backward_hooks(every)
    for module in modules:
        if isinstance(children := vars(module).get("_modules"), dict) and "_orig_mod" in children:
            vars(module)["forward"] = children["_orig_mod"]  # hooks on compiled code may never fire


def flags_of(parameters: Sequence[nn.Parameter]) -> Callable[[], None]:
    """What gives parameters back whether they require a gradient: a forward may freeze them."""
    flags = list(map(_REQUIRES_GRAD, parameters))

    def restore() -> None:
        if list(map(_REQUIRES_GRAD, parameters)) != flags:
            for parameter, flag in zip(parameters, flags, strict=True):
                parameter.requires_grad_(flag)

    return restore


def keep_values(undo: Undo, buffers: Iterable[Tensor]) -> None:
    """Buffers that a forward writes into (counters, caches) get their values back when ``undo`` runs."""
    undo.add(Values(buffers).give_back)


def to_eval(modules: Iterable[nn.Module]) -> None:
    """Eval mode by the flags alone: an ``eval`` of the user's may write into weights (LoRA merges), or refuse."""
    for module in modules:
        if hasattr(module, "training"):
            module.training = False


def name_backward_hooks(modules: Iterable[nn.Module]) -> None:
    """Let the user's backward hooks run only where there is a gradient, and let an error of one be known as its own.

    A run takes gradients of layers, so that a module that begins before them has none of its inputs. Torch calls a full
    hook all the same, with ``None`` for each, which a hook that reads them does not expect.
    """
    for module in modules:
        row = vars(module)
        if row.get("_is_full_backward_hook"):
            for number, hook in row["_backward_hooks"].items():
                row["_backward_hooks"][number] = partial(_where_a_gradient_is, hook)
        for number, hook in (row.get("_backward_pre_hooks") or {}).items():
            row["_backward_pre_hooks"][number] = partial(_named, hook)


def _where_a_gradient_is(hook: Callable[..., Any], module: nn.Module, into: tuple[Any, ...], out: Any) -> Any:
    return None if all(each is None for each in into) else _named(hook, module, into, out)


def _named(hook: Callable[..., Any], module: nn.Module, *gradients: Any) -> Any:
    try:
        return hook(module, *gradients)
    except Exception as error:
        if isinstance(error, AttributionError | MemoryError) or (
            isinstance(error, RuntimeError) and out_of_memory(error)
        ):
            raise
        raise ModelError(
            f"a backward hook on a {type(module).__name__} of the model failed: {type(error).__name__}: {error}"
        ) from error


def _held(values: Iterable[Any], kind: type, depth: int = 4) -> Iterator[Any]:
    """What plain attributes hold of a kind, also in lists, tuples and dicts. A tensor with a graph is let be."""
    for value in values:
        if isinstance(value, kind):
            if not (isinstance(value, Tensor) and (value.requires_grad or value.layout != torch.strided)):
                yield value
        elif depth and isinstance(value, list | tuple | dict):
            yield from _held(value.values() if isinstance(value, dict) else value, kind, depth - 1)


def _array_values(values: Iterable[Any]) -> Callable[[], None]:
    numpy: Any = sys.modules.get("numpy")
    found = _held(values, numpy.ndarray) if numpy is not None else ()
    before = [(array, array.copy()) for array in found if array.flags.writeable and not array.dtype.hasobject]

    def restore() -> None:
        for array, kept in before:
            if array.tobytes() != kept.tobytes():
                array[...] = kept

    return restore


def attributes_of(
    modules: list[nn.Module], *, hooks: bool = True, beside: Sequence[dict[Any, Any] | list[Any]] = ()
) -> Callable[[], None]:
    """What gives modules their flags and attributes back, and the dicts and lists among them: children, hooks.

    Args:
        modules: Of a model.
        hooks: Whether hooks are given back.
        beside: What else is: dicts and lists that lie deeper.
    """
    training = [(module, module.training) for module in modules if hasattr(module, "training")]  # frozen TorchScript
    held: list[dict[Any, Any]] = [vars(module) for module in modules]
    held += [
        row
        for own in held
        for name, row in own.items()
        if isinstance(row, dict) and not isinstance(row, Notes) and (hooks or "hooks" not in name)
    ]
    held += [each for each in beside if isinstance(each, dict)]
    before = [dict(row) for row in held]
    lists = [(row, row[:]) for own in held for row in own.values() if isinstance(row, list)]
    lists += [(each, each[:]) for each in beside if isinstance(each, list)]

    def restore() -> None:
        for row, items in zip(held, before, strict=True):
            for name in [name for name in row if name not in items]:
                row.pop(name, None)
            for name, value in items.items():
                if name not in row or row[name] is not value:
                    row[name] = value
            if list(row) != list(items):  # the order of parameters is that of an optimiser's state, of hooks their turn
                row.clear()
                row.update(items)
        for content, found in lists:
            if len(content) != len(found) or any(map(is_not, content, found)):
                content[:] = found
        for module, mode in training:
            if module.training is not mode:
                module.training = mode

    return restore


class Whole(nn.Module):
    """A model as one layer: it runs, and its parameters are known, but nothing in it can be named or hooked."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._parameters.update(model.named_parameters())
        self._buffers.update(model.named_buffers())
        vars(self)["_inner"] = model  # no child

    @property
    def inner(self) -> nn.Module:
        """The model."""
        found: nn.Module = vars(self)["_inner"]
        return found

    def forward(self, x: Tensor) -> object:
        """Whatever the model returns."""
        return self.inner(x)

    def __deepcopy__(self, memo: object) -> "Whole":
        raise TypeError("TorchScript has no modules to take apart")
