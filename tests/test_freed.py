"""A model is freed with its last user, also where its parts lead back to it; and what is large is copied once."""

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attribution import Activations, explain
from attribution.isolation.context import isolated
from attribution.testing import guard
from tests.cases import PAIRS, all_placed, given
from tests.conftest import noise
from tests.draw import some

X = noise(1, 3, 9, 11)
TECHNIQUES = all_placed({"stem": "conv", "body": "conv"})


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.fc = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Linear(8, 4)

    def middle(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(self.middle(self.conv(x))).mean((2, 3)))  # type: ignore[no-any-return]


class OwnHook(Net):
    """Keeps what it saw, by a hook that is its own method."""

    def __init__(self) -> None:
        super().__init__()
        self.conv.register_forward_hook(self.save)

    def save(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self.features = output


class OwnPreHook(Net):
    def __init__(self) -> None:
        super().__init__()
        self.fc.register_forward_pre_hook(self.look)

    def look(self, module: nn.Module, args: Any) -> None:
        self.seen = True


class Parent(Net):
    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self.conv, "parent", self)


class Family(Net):
    def __init__(self) -> None:
        super().__init__()
        vars(self.conv)["family"] = [self]
        vars(self.fc)["family"] = {"all": (self, self.conv)}


class Lambdas(Net):
    def __init__(self) -> None:
        super().__init__()
        self.steps = {"middle": lambda x: self.scaled(x)}

    def scaled(self, x: Tensor) -> Tensor:
        return 2 * x

    def middle(self, x: Tensor) -> Tensor:
        return self.steps["middle"](x)


class Replaced(Net):
    """Its own forward, wrapped."""

    def __init__(self) -> None:
        super().__init__()
        own = self.forward
        self.forward = lambda x: 2 * own(x)  # type: ignore[method-assign]


class Watched(Net):
    """A weak reference whose callback leads back."""

    def __init__(self) -> None:
        super().__init__()
        self.watch = weakref.ref(self.conv, lambda gone: self.middle)


class Owner:
    def __init__(self, model: nn.Module) -> None:
        self.model = model


class Owned(Net):
    def __init__(self) -> None:
        super().__init__()
        self.owner = Owner(self)


class ClosureHook(Net):
    def __init__(self) -> None:
        super().__init__()
        self.conv.register_forward_hook(lambda module, args, output: output * self.fc.weight.sum())


class Method(Net):
    """A bound method of its own, and itself in a partial."""

    def __init__(self) -> None:
        super().__init__()
        self.step = self.middle

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(self.step(self.conv(x))).mean((2, 3)))  # type: ignore[no-any-return]


class BackwardHook(Net):
    def __init__(self) -> None:
        super().__init__()
        self.fc.register_full_backward_hook(self.save)

    def save(self, module: nn.Module, into: Any, out: Any) -> None:
        self.gradient = out


SHAPES: list[Callable[[], Net]] = [
    OwnHook, OwnPreHook, Parent, Family, Lambdas, Replaced, Watched, Owned, ClosureHook, Method, BackwardHook,
]  # fmt: skip


LEADS_BACK = [pytest.param(shape, pair, id=f"{'.'.join(pair)}-{shape.__name__}") for pair in PAIRS for shape in SHAPES]


@pytest.mark.parametrize(("shape", "pair"), some(LEADS_BACK, 0.1, whole=("grad_cam.hooks",)))
def test_a_model_that_leads_back_to_itself_is_freed(shape: Callable[[], Net], pair: tuple[str, str]) -> None:
    model, technique = shape().eval(), TECHNIQUES[pair[0]]
    inputs, target = given(technique, X)
    for _ in range(2):
        with guard(model, inputs):
            explain(model, inputs, technique, backend=pair[1], target=target)
    weights = [weakref.ref(parameter) for parameter in model.parameters()]
    gone = weakref.ref(model)
    del model
    for _ in range(3):  # first the model, which lets go of its copy, then the copy
        gc.collect()
    assert gone() is None
    assert all(weight() is None for weight in weights)


def copies(model: nn.Module, change: Callable[[int], None] = lambda call: None) -> int:
    """How many copies four calls make; each is seen to be right."""
    made: set[int] = set()
    kept: list[nn.Module] = []
    for call in range(4):
        change(call)
        with isolated(model) as (found, way):
            assert way == "shadow"
            made.add(id(found))
            kept.append(found)  # so that no id is used twice
            with torch.no_grad():
                assert torch.equal(found(X), copy.deepcopy(model)(X))
    return len(made)


class Settings:
    def __init__(self) -> None:
        self.names, self.sizes, self.other = {"a", "b"}, (1, 2), [1.0]
        self.me = self


class Table(Net):
    """Tensors and arrays that nobody registered, and objects with settings."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.table = torch.ones(size)
        self.nested: dict[str, Any] = {"tables": [torch.ones(size), (torch.ones(2, 3),)]}
        self.array = np.ones(size)
        self.settings = Settings()

    def middle(self, x: Tensor) -> Tensor:
        factor = self.table[0] * self.nested["tables"][0][-1] * float(self.array[1])
        found: Tensor = x * factor * self.settings.other[0]
        return found


@pytest.mark.parametrize("size", [7, 5_000_000], ids=["small", "large"])
def test_plain_tensors_are_copied_once_and_followed(size: int) -> None:
    model = Table(size).eval()
    assert copies(model) == 1

    def change(call: int) -> None:
        model.table.data[0] = call + 2.0  # counts no version
        model.nested["tables"][0].numpy()[-1] = call + 3.0
        model.array[1] = call + 4.0

    assert copies(model, change) == 1
    before = explain(model, X, Activations(layers=("fc",))).map
    model.settings.other[0] = 3.0
    after = explain(model, X, Activations(layers=("fc",))).map
    with torch.no_grad():
        assert torch.equal(after, model(X))
    assert not torch.equal(before, after)


def test_bytes_of_a_large_attribute_are_allocated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four calls by each attributor; the attribute tells how often it is copied."""
    copied: list[int] = []
    real = torch.Tensor.__deepcopy__

    def telling(tensor: Tensor, memo: Any) -> Any:
        copied.append(tensor.numel())
        return real(tensor, memo)

    model = Table(5_000_000).eval()
    monkeypatch.setattr(torch.Tensor, "__deepcopy__", telling)
    for _ in range(4):
        for technique, backend in (pair for pair in PAIRS if pair[0] in ("activations", "grad_cam")):
            explain(model, X, TECHNIQUES[technique], backend=backend, target=1 if technique == "grad_cam" else None)
    assert copied.count(5_000_000) == 2, "one of each of two tensors"


def test_what_a_forward_writes_into_a_plain_tensor_does_not_add_up() -> None:
    class Writing(Net):
        def __init__(self) -> None:
            super().__init__()
            self.count, self.array = torch.zeros(3), np.zeros(2)

        def middle(self, x: Tensor) -> Tensor:
            self.count += 1
            self.array += 1
            return x + self.count[0] + float(self.array[0])

    model = Writing().eval()
    found = [explain(model, X, Activations(layers=("fc",))).map for _ in range(3)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert not model.count.any()
    assert not model.array.any()


def test_what_a_model_remembers_makes_no_new_copy() -> None:
    model = OwnHook().eval()
    with isolated(model) as (first, _):
        first(X)
    with isolated(model) as (second, _):
        assert second is first
        assert not hasattr(second, "features")
