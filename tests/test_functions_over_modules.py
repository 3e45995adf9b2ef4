"""Functions that lead to a model's own modules, past any copy: the model runs itself, and nothing is written."""

import collections
import functools
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attribution import Activations, GradCAM, Occlusion, explain
from attribution.testing import guard
from tests.conftest import BACKENDS, logit
from tests.middle import Net, X, exact


class Using:
    """An object that is called, and says that it is its own copy."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, x: Tensor) -> Any:
        return self.module(x)

    def __deepcopy__(self, memo: object) -> "Using":
        return self


class Slots:
    __slots__ = ("module",)

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __deepcopy__(self, memo: object) -> "Slots":
        return self

    def apply(self, x: Tensor) -> Any:
        return self.module(x)


def by(norm: nn.Module, x: Tensor) -> Any:
    return norm(x)


def with_default(model: Net) -> Callable[[Tensor], Any]:
    def function(x: Tensor, norm: nn.Module = model.norm) -> Any:
        return norm(x)

    return function


def with_keyword(model: Net) -> Callable[[Tensor], Any]:
    def function(x: Tensor, *, norm: nn.Module = model.norm) -> Any:
        return norm(x)

    return function


def with_attribute(model: Net) -> Callable[[Tensor], Any]:
    def function(x: Tensor) -> Any:
        return function.norm(x)  # type: ignore[attr-defined]

    function.norm = model.norm  # type: ignore[attr-defined]
    return function


def twice_removed(model: Net) -> Callable[[Tensor], Any]:
    def inner(x: Tensor) -> Any:
        return model.norm(x)

    def outer(x: Tensor) -> Any:
        return inner(x)

    return lambda x: outer(x)


GLOBAL: dict[str, Any] = {}


def over_a_global(model: Net) -> Callable[[Tensor], Any]:
    GLOBAL["norm"] = model.norm
    return lambda x: GLOBAL["norm"](x)


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    GLOBAL.clear()
    vars(SETTINGS).pop("norm", None)
    CURRENT.set(None)


def in_a_generator(model: Net) -> Callable[[Tensor], Any]:
    steps = [lambda x: model.norm(x)]
    return lambda x: next(step(x) for step in steps)


def weakly(model: Net) -> Callable[[Tensor], Any]:
    reference = weakref.ref(model)
    return lambda x: reference().norm(x)  # type: ignore[union-attr]


def by_weak_method(model: Net) -> Callable[[Tensor], Any]:
    method = weakref.WeakMethod(model.norm.__call__)
    return lambda x: method()(x)  # type: ignore[misc]


SETTINGS = ModuleType("settings")
CURRENT: ContextVar[Any] = ContextVar("current")


def by_a_python_module(model: Net) -> Callable[[Tensor], Any]:
    SETTINGS.norm = model.norm  # type: ignore[attr-defined]
    return lambda x: SETTINGS.norm(x)


def by_a_context(model: Net) -> Callable[[Tensor], Any]:
    CURRENT.set(model.norm)
    return lambda x: CURRENT.get()(x)


def in_an_array(model: Net) -> Callable[[Tensor], Any]:
    held = np.array([lambda x: model.norm(x), None], dtype=object)
    return lambda x: held[0](x)


def on_a_tensor(model: Net) -> Callable[[Tensor], Any]:
    held = torch.zeros(1)
    held.use = lambda x: model.norm(x)  # type: ignore[attr-defined]
    return lambda x: held.use(x)  # type: ignore[attr-defined]


def by_a_built_in(model: Net) -> Callable[[Tensor], Any]:
    get = {"norm": lambda x: model.norm(x)}.get
    return lambda x: get("norm")(x)  # type: ignore[misc]


FUNCTIONS: dict[str, Callable[[Net], Callable[[Tensor], Any]]] = {
    "closure": lambda m: lambda x: m.norm(x),
    "default": with_default,
    "keyword default": with_keyword,
    "attribute of a function": with_attribute,
    "partial": lambda m: functools.partial(lambda norm, x: norm(x), m.norm),  # the one that a copy takes along
    "partial of a function": lambda m: functools.partial(lambda f, x: f(x), lambda x: m.norm(x)),
    "keyword of a partial": lambda m: functools.partial(lambda x, use: use(x), use=lambda x: m.norm(x)),
    "function over functions": twice_removed,
    "global": over_a_global,
    "generator": in_a_generator,
    "object": lambda m: Using(m.norm),
    "method of an object with slots": lambda m: Slots(m.norm).apply,
    "weak reference": weakly,
    "weak method": by_weak_method,
    "bound method in a closure": lambda m: (lambda f: lambda x: f(x))(m.norm.__call__),
    "attribute of a Python module": by_a_python_module,
    "context variable": by_a_context,
    "array of objects": in_an_array,
    "attribute of a tensor": on_a_tensor,
    "built-in method": by_a_built_in,
    "cached": lambda m: functools.lru_cache(maxsize=None)(lambda x: m.norm(x)),
}
HOLDERS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "attribute": (lambda f: f, lambda held: held),
    "list": (lambda f: [f], lambda held: held[0]),
    "dict of tuples": (lambda f: {"norm": (f, 1)}, lambda held: held["norm"][0]),
    "deque": (lambda f: collections.deque([f]), lambda held: held[0]),
    "set": (lambda f: {f}, lambda held: next(iter(held))),
}


class Held(Net):
    def __init__(self, function: str, holder: str) -> None:
        super().__init__()
        put, self.take = HOLDERS[holder]
        self.held = put(FUNCTIONS[function](self))

    def middle(self, x: Tensor) -> Tensor:
        return self.take(self.held)(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("function", "holder"),
    [(name, "attribute") for name in FUNCTIONS] + [("closure", name) for name in HOLDERS if name != "attribute"],
)
@BACKENDS
def test_functions_over_the_models_modules(function: str, holder: str, backend: str) -> None:
    model = Held(function, holder).train()
    expected = exact(model)
    for technique in (GradCAM(layers=("conv",)), Occlusion(window=5, stride=4)):
        with guard(model, X):
            result = explain(model, X, technique, backend=backend, target=logit(1))
        assert result.scores is not None
        assert torch.allclose(result.scores[:, 0], expected[:, 1])
        assert result.provenance["isolation"] == ("shadow" if function == "partial" else "guarded")
    norm = explain(model, X, Activations(layers=("norm",)), backend=backend)
    assert norm.map.shape == (3, 4, 7, 9), "the norm that runs is the one that is named"


def hook_with_another(model: Net) -> None:
    model.conv.register_forward_hook(lambda module, args, output: model.norm(output))


def pre_hook_with_another(model: Net) -> None:
    model.fc.register_forward_pre_hook(lambda module, args: (model.norm(args[0][:, :4, None, None]).flatten(1),))


@pytest.mark.parametrize("add", [hook_with_another, pre_hook_with_another])
@BACKENDS
def test_hooks_that_use_another_module(add: Callable[[Net], None], backend: str) -> None:
    model = Net().train()
    add(model)
    expected = exact(model)
    with guard(model, X):
        result = explain(model, X, Occlusion(window=5, stride=4), backend=backend, target=logit(1))
    assert result.scores is not None
    assert torch.allclose(result.scores[:, 0], expected[:, 1])
    assert result.provenance["isolation"] == "guarded"


def test_a_module_that_nobody_registered_gets_its_buffers_back() -> None:
    """It keeps its mode, as after ``model.eval()``, but what it writes is given back."""
    outside = nn.BatchNorm2d(4).train()

    class Beside(Net):
        def middle(self, x: Tensor) -> Tensor:
            return outside(x)  # type: ignore[no-any-return]

    model = Beside().eval()
    before = [buffer.clone() for buffer in outside.buffers()]
    for _ in range(2):
        result = explain(model, X, GradCAM(layers=("conv",)), target=1)
        assert result.provenance["isolation"] == "guarded"
    assert all(map(torch.equal, before, outside.buffers()))
