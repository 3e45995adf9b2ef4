"""A model as a graph of what it does to its input."""

import copy
import operator
import sys
from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import chain
from typing import Any

from torch import Tensor, fx, nn
from torch.fx.proxy import Scope
from torch.nn.modules import module as registry

from attribution.lowered.norms import is_batch_norm
from attribution.running.execution import first_line

LARGE = 2**24
"""Bytes of a tensor from which on a trace shares it with the model."""


class Untraceable(Exception):
    """Why a model cannot be taken apart."""


_COMPUTED = frozenset({"shape", "T", "mT", "H", "mH", "real", "imag", "data", "ndim"})
"""What a tensor has that is no method, and that a graph computes from it."""


@lru_cache
def _of_torch(asking: str) -> bool:
    """Whether a module is torch's, or this file: they record the graph."""
    return asking == __name__ or asking.partition(".")[0] == "torch"


class _Symbol(fx.Proxy):
    """A value to come. ``x += y`` stays in place: a plain proxy would record ``x = x + y`` and lose what else x is."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """Read by ``isinstance``. A model that asks gets another answer from a tensor, and may go another way.

        "A tensor" cannot be answered: torch's own code would believe it, and read memory that is not there.
        """
        frame = sys._getframe(1)
        if _of_torch(str(frame.f_globals.get("__name__"))) and frame.f_code.co_name != "is_tensor":
            return _Symbol
        refused: type = self._refuse("the type")
        return refused

    def __getattr__(self, name: str) -> Any:
        """Methods of tensors, and what is computed; of the rest a symbol would say something else than a tensor."""
        known = hasattr(Tensor, name)
        if (
            (known and callable(getattr(Tensor, name)))
            or name in _COMPUTED
            or (not known and _of_torch(str(sys._getframe(1).f_globals.get("__name__"))))
        ):
            return super().__getattr__(name)
        return self._refuse(name)

    def _refuse(self, what: str) -> Any:
        return self.tracer.refuse(f"the model asks for {what} of a value")  # type: ignore[attr-defined]

    def __len__(self) -> int:
        return int(self._refuse("the length"))

    def __float__(self) -> float:
        return float(self._refuse("the number"))

    def __int__(self) -> int:
        return int(self._refuse("the number"))

    def __index__(self) -> int:
        return int(self._refuse("the number"))

    def __complex__(self) -> complex:
        return complex(self._refuse("the number"))

    def __contains__(self, item: object) -> bool:
        return bool(self._refuse("the content"))

    def __str__(self) -> str:
        return str(self._refuse("the text"))

    def __repr__(self) -> str:
        return str(self._refuse("the text"))

    def __format__(self, form: str) -> str:
        return str(self._refuse("the text"))

    def __iadd__(self, other: Any) -> Any:
        return self._changed("iadd", other)

    def __isub__(self, other: Any) -> Any:
        return self._changed("isub", other)

    def __imul__(self, other: Any) -> Any:
        return self._changed("imul", other)

    def __itruediv__(self, other: Any) -> Any:
        return self._changed("itruediv", other)

    def __ipow__(self, other: Any) -> Any:
        return self._changed("ipow", other)

    def _changed(self, name: str, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", getattr(operator, name), (self, other), {})


class _Tracer(fx.Tracer):
    """Traces a copy of a model whose leaves answer with symbols.

    ``fx.Tracer.trace`` itself patches ``nn.Module`` for all threads while it runs, and two of them at once leave it
    patched for good.
    """

    def __init__(self, root: nn.Module) -> None:
        super().__init__()
        self.root, self.graph = root, fx.Graph()
        self.scope, self.module_stack, self.node_name_to_scope = Scope("", type(root)), {}, {}  # type: ignore[assignment]
        self.tensor_attrs = {}
        self.refused: str | None = None
        for name, module in root.named_modules():
            before = f"{name}." if name else ""
            for key, value in vars(module).items():
                if isinstance(value, Tensor):
                    self.tensor_attrs[value] = before + key

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Symbol(node, self)

    def refuse(self, why: str) -> Any:
        """Give up, also where the model swallows the error: it may then go another way than with tensors.

        Raises:
            Untraceable: Always.
        """
        self.refused = self.refused or why
        raise Untraceable(why)

    def to_bool(self, obj: fx.Proxy) -> bool:
        return bool(self.refuse("the model branches on a value"))

    def keys(self, obj: fx.Proxy) -> Any:
        return self.refuse("the model asks for the keys of a value")

    def iter(self, obj: fx.Proxy) -> Any:
        try:
            return super().iter(obj)
        except Exception:
            return self.refuse("the model iterates over a value")

    def record(self) -> fx.Graph:
        """The graph of the root's forward, its optional arguments left at their defaults."""
        image = self.create_proxy("placeholder", "image", (), {})
        for name, module in list(self.root.named_modules()):
            if _is_leaf(module):
                vars(module)["forward"] = partial(self._called, name)
                continue
            before = f"{name}." if name else ""
            for key, tensor in chain(module._parameters.items(), module._buffers.items()):
                if tensor is not None:
                    vars(module)[key] = self.create_proxy("get_attr", before + key, (), {})
        output = self.root(image)
        self.create_node("output", "output", (self.create_arg(output),), {})
        if self.refused is not None:
            raise Untraceable(self.refused)
        return self.graph

    def forget(self) -> None:
        """Let go of the copy, which the symbols in it would keep until the next garbage collection."""
        self.root = nn.Module()
        self.tensor_attrs.clear()

    def _called(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self.create_proxy("call_module", name, args, kwargs)


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None or is_batch_norm(module)


def trace(model: nn.Module) -> fx.Graph:
    """The model's graph; modules without children are its leaves. Neither the model nor torch is touched.

    Raises:
        Untraceable: Control flow depends on the input, `hooked`, or the model cannot be copied.
    """
    if (why := hooked(model)) is not None:
        raise Untraceable(why)
    try:
        kept = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers(), _large(model))}
        twin = copy.deepcopy(model, kept)
        if not {*map(id, model.modules())}.isdisjoint(map(id, twin.modules())):
            raise ValueError("a module is its own copy")
        tracer = _Tracer(twin)
        try:
            graph = tracer.record()
        finally:
            tracer.forget()
        for node in graph.nodes:
            if node.op == "get_attr":
                _attribute(model, str(node.target))
        graph.lint()
    except Untraceable as why:
        raise Untraceable(f"not traceable: {why}") from why
    except Exception as error:  # the model's own code runs on symbols and can fail in any way
        raise Untraceable(f"not traceable: {first_line(error)}") from error
    return graph


def _large(model: nn.Module) -> Iterator[Tensor]:
    """Tensors held as plain attributes that are too large for a copy in every call; symbols write into none of them."""
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and value.nbytes >= LARGE:
                yield value


def hooked(model: nn.Module) -> str | None:
    """Why a forward is not what its class says. Hooks come and go, so that no call knows it of another one."""
    of_all = registry._global_forward_hooks or registry._global_forward_pre_hooks
    if of_all or any(m._forward_hooks or m._forward_pre_hooks for m in model.modules()):
        return "modules have forward hooks"
    if any("forward" in vars(module) for module in model.modules()):
        return "a module's forward was replaced"
    return None


def _attribute(model: nn.Module, name: str) -> Any:
    """A tensor that the model made while it ran is no attribute of it, and would not be made again."""
    value: Any = model
    for part in name.split("."):
        if not hasattr(value, part):
            raise Untraceable("the model makes a tensor of its own while it runs")
        value = getattr(value, part)
    return value
