"""Hooks that another library left on the user's model: objects that keep what they see, shared with nobody."""

import gc
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import GradCAM, explain
from attribution.isolation.structural_copy import Shadow
from attribution.testing import small_cnn

X = torch.rand(3, 3, 17, 23, generator=torch.Generator().manual_seed(1))


class Keeps:
    """As pytorch-grad-cam's and torchcam's hooks do: their object holds the model, handles, and what was seen."""

    def __init__(self, model: nn.Module, factor: float = 1.0) -> None:
        self.model, self.factor, self.seen = model, factor, list[Tensor]()
        self.scale, self.total = torch.ones(()), torch.zeros(())
        self.by_layer: dict[str, list[Tensor]] = {"body": []}
        self.handles: list[Any] = []

    def save(self, module: nn.Module, args: object, output: Tensor) -> Tensor:
        self.seen.append(output.detach())
        self.total += output.detach().mean()
        self.by_layer["body"].append(output.detach())
        return output * self.factor * self.scale

    __call__ = save

    def put(self, hook: Callable[..., Any]) -> "Keeps":
        self.handles.append(self.model.get_submodule("body").register_forward_hook(hook))
        return self


KINDS: dict[str, Callable[[Keeps], Callable[..., Any]]] = {
    "method": lambda keeps: keeps.save,
    "object": lambda keeps: keeps,
    "partial": lambda keeps: partial(keeps.save),
}


def ask(model: nn.Module) -> Tensor:
    return explain(model, X, GradCAM(layers=("body",), upsample=False), target=[1, 0, 2]).map


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for every copy that is made."""
    found, init = list[int](), Shadow.__init__

    def counted(self: Shadow, model: nn.Module) -> None:
        found.append(1)
        init(self, model)

    monkeypatch.setattr(Shadow, "__init__", counted)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_one_copy_serves_all_calls_and_the_object_is_as_found(kind: str, made: list[int]) -> None:
    model = small_cnn().double().float()
    plain = ask(model)
    keeps = Keeps(model, factor=2.0)
    keeps.put(KINDS[kind](keeps))
    model(X)
    seen, total = ([*keeps.seen], [*keeps.by_layer["body"]]), keeps.total.clone()
    made.clear()
    first, second = ask(model), ask(model)
    assert len(made) == 1
    assert torch.equal(first, second)
    torch.testing.assert_close(first, 2 * plain)  # the layer gives twice as much, and the rest goes on from there
    assert [*map(id, keeps.seen)] == [*map(id, seen[0])]
    assert [*map(id, keeps.by_layer["body"])] == [*map(id, seen[1])]
    assert torch.equal(keeps.total, total)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_changes_is_seen(kind: str, made: list[int]) -> None:
    model = small_cnn()
    keeps = Keeps(model)
    keeps.put(KINDS[kind](keeps))
    before = ask(model)
    keeps.factor = 3.0
    torch.testing.assert_close(ask(model), 3 * before)
    with torch.no_grad():
        keeps.scale.mul_(2)  # values are brought up to date
    count = len(made)
    torch.testing.assert_close(ask(model), 6 * before)
    assert len(made) == count
    keeps.scale = torch.full((), 0.5)
    torch.testing.assert_close(ask(model), 1.5 * before)
    model(X)  # it sees more
    torch.testing.assert_close(ask(model), 1.5 * before)
    keeps.handles[0].remove()
    torch.testing.assert_close(ask(model), before)


def test_hooks_do_not_keep_the_model_alive() -> None:
    model = small_cnn()
    keeps = Keeps(model)
    keeps.put(keeps.save)
    ask(model)
    gone = weakref.ref(model)
    del model, keeps
    gc.collect()
    assert gone() is None


def test_what_cannot_be_compared_is_told(made: list[int]) -> None:
    class Graph(Keeps):
        def save(self, module: nn.Module, args: object, output: Tensor) -> Tensor:
            self.__dict__["last"] = output
            return output * self.factor

        def __reduce__(self) -> Any:  # it says itself how it is copied
            return Graph, (self.model, self.factor)

    model = small_cnn()
    keeps = Graph(model, 2.0)
    keeps.put(keeps.save)
    results = [explain(model, X, GradCAM(layers=("body",)), target=1) for _ in range(2)]
    assert torch.equal(results[0].map, results[1].map)
    assert {result.provenance["isolation"] for result in results} == {
        "shadow, made anew: hooks hold what cannot be compared"
    }
    assert len(made) == 2
