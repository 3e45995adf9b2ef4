"""What can be reached from a model past its registries: through objects, functions, weak references, classes."""

import copyreg
import dis
import gc
import sys
import weakref
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from functools import cache
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, ModuleType, TracebackType
from typing import Any

import torch
from torch import Tensor, fx, nn

MOST = 10**6
"""Objects after which a search ends. It has then found no end, and who asked must expect anything."""

_ATOMS = frozenset((
    bool, int, float, complex, str, bytes, type(None), type(Ellipsis), ModuleType,
    CodeType, FrameType, TracebackType,  # a traceback is no code of the model, though it leads everywhere
    torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format,
))  # fmt: skip
MADE_BY_A_STATEMENT = 1 << 9
"""Python's flag of classes that a ``class`` statement made, rather than C."""

_PROXIES = (weakref.ProxyType, weakref.CallableProxyType)
_FOLDERS = ("site-packages", "dist-packages")
_saying: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()
_PROTOCOL = ("__deepcopy__", "__getstate__", "__reduce__", "__reduce_ex__", "__setstate__")


class Reach:
    """Everything that code of a model may use.

    Of a function these are its own variables, its defaults, its attributes, and those of its globals that its code
    names; of a weak reference what it refers to; of an object what it holds, and its class. The globals and classes of
    an installed library are left out: they are many, and no models.

    Args:
        model: Where to begin.
        known: Modules beyond which nothing is looked for: one of them is an answer.

    Attributes:
        modules: Those found, registered or not, in the order in which they were found.
        tensors: Ids of the tensors found.
        endless: Whether the search was given up.
        doubtful: Whether an object or module says itself how it is copied, or is a graph module.
    """

    def __init__(self, model: nn.Module, known: Iterable[nn.Module] = ()) -> None:
        self.modules: list[nn.Module] = []
        self.tensors: set[int] = set()
        self.doubtful = False
        ends, seen, kept = {*map(id, known)}, {id(model)}, list[Any]()
        front: list[Any] = [model]
        while front and len(seen) < MOST:
            plain: list[Any] = []
            further: list[Any] = []
            for value in front:
                kind = type(value)
                if kind in _PROXIES:
                    further += _behind(value)
                    continue
                if issubclass(kind, nn.Module):
                    self.modules.append(value)
                    if id(value) in ends:
                        continue
                if issubclass(kind, Tensor):
                    self.tensors.add(id(value))
                    further += vars(value).values()
                elif issubclass(kind, FunctionType):
                    further += _of_function(value)
                elif issubclass(kind, type):
                    further += _of_class(value)
                elif issubclass(kind, BuiltinFunctionType):  # a method of an object, or a function of a module
                    further.append(value.__self__)
                elif issubclass(kind, ContextVar):
                    further.append(value.get(None))
                elif kind.__module__ == "numpy" and kind.__name__ == "ndarray":
                    further += value.ravel().tolist() if value.dtype.hasobject else ()
                elif issubclass(kind, weakref.ref):
                    further += [value(), value.__callback__]
                    further += gc.get_referents(value)
                else:
                    self.doubtful = self.doubtful or says_itself(kind)
                    plain.append(value)
            further += gc.get_referents(*plain)
            kept += further  # so that no id is used twice
            front = []
            for value in further:
                if type(value) not in _ATOMS and id(value) not in seen:
                    seen.add(id(value))
                    front.append(value)
        self.endless = bool(front)


def says_itself(kind: Any) -> bool:
    """Whether a class has its own idea of what a copy is."""
    if kind not in _saying:
        _saying[kind] = bool(kind.__flags__ & MADE_BY_A_STATEMENT) and (
            issubclass(kind, fx.GraphModule)
            or kind in copyreg.dispatch_table
            or not all(_usual(kind, name) for name in _PROTOCOL)
        )
    return _saying[kind]


def _behind(proxy: Any) -> list[Any]:
    try:
        return [proxy.__repr__.__self__]
    except ReferenceError:  # it is gone
        return []


def _usual(kind: type, name: str) -> bool:
    """Whether a class has a method of copying from a library, or none."""
    owner = next((base for base in kind.__mro__ if name in vars(base)), object)
    return owner is object or owner.__module__.partition(".")[0] in ("torch", *sys.stdlib_module_names)


def _of_library(module: object) -> bool:
    return isinstance(module, str) and _installed(module.partition(".")[0])


@cache
def _installed(package: str) -> bool:
    if package in sys.stdlib_module_names and package != "__main__":
        return True
    found = sys.modules.get(package)
    places = [getattr(found, "__file__", None) or "", *getattr(found, "__path__", ())]
    return any(folder in place for place in places for folder in _FOLDERS)


def _of_class(kind: type) -> Iterator[Any]:
    if not _of_library(kind.__module__):
        yield from kind.__bases__
        yield from vars(kind).values()


def _of_function(function: FunctionType) -> Iterator[Any]:
    if _of_library(function.__module__) and not function.__closure__:
        return
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    yield from vars(function).values()
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    if not _of_library(function.__module__):
        spoken = function.__globals__
        for name in _names(function.__code__, spoken):
            yield spoken[name]
        named = {*_all_names(function.__code__)}
        for space in [spoken[name] for name in named if isinstance(spoken.get(name), ModuleType)]:
            if not _of_library(space.__name__):  # a module of the user's, and what the code may take from it
                yield from [vars(space)[name] for name in named if name in vars(space)]


def _all_names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _all_names(constant)


def _names(code: CodeType, spoken: dict[str, Any]) -> Iterator[str]:
    """The globals that code reads, also inside its own functions. Attributes of the same name do not count."""
    maybe = {name for name in code.co_names if name in spoken and type(spoken[name]) not in _ATOMS}
    if maybe:
        read = {str(step.argval) for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
        yield from maybe & read
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant, spoken)
