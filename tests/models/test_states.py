"""Models with a state of their own: none of it is stale in an answer, and none of it is changed by one."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from attribution import Activations, FilterVisualization, GradCAM, LayerError, ModelError
from attribution import explain as explained
from attribution.testing import guard
from tests.cases import SOME_PAIRS, all_placed, given
from tests.models.stateful import Base, X, ask, exact, scores

TECHNIQUES = all_placed({"stem": "conv", "body": "conv"})


class Cached(Base):
    """Eval mode fills a cache of weights, as group-equivariant convolutions do."""

    kernel: Tensor | None = None

    def train(self, mode: bool = True) -> "Cached":
        super().train(mode)
        if not mode:
            self.kernel = 2 * self.conv.weight.detach()
        return self

    def forward(self, x: Tensor) -> Tensor:
        assert self.kernel is not None
        weight = 2 * self.conv.weight if self.training else self.kernel
        logits: Tensor = self.head(F.conv2d(x, weight, padding=1).mean((2, 3)))
        return logits


class Hidden(Base):
    """Its dropout is in a list that no module knows."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = [nn.Dropout(0.5)]

    def train(self, mode: bool = True) -> "Hidden":
        super().train(mode)
        for module in self.hidden:
            module.train(mode)
        return self

    def after(self, x: Tensor) -> Tensor:
        y: Tensor = self.hidden[0](x)
        return y


@pytest.mark.parametrize("build", [Cached, Hidden])
def test_an_eval_mode_that_is_more_than_flags(build: Callable[[], nn.Module]) -> None:
    model = build().eval().train()
    with torch.no_grad():
        model.get_parameter("conv.weight").mul_(-3)
    with guard(model, X):
        result = ask(model)
    assert result.provenance["isolation"] == "copy"
    assert torch.allclose(scores(model), exact(model))
    assert ask(model.eval()).provenance["isolation"] == "shadow"


class Scale:
    factor = 1.0

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return self.factor * output

    def method(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return self.factor * output


@pytest.mark.parametrize("of", [lambda scale: scale, lambda scale: scale.method], ids=["object", "method"])
def test_hooks_with_a_state(of: Callable[[Scale], Any]) -> None:
    model, scale = Base().eval(), Scale()
    model.conv.register_forward_hook(of(scale))
    before = scores(model)
    scale.factor = 3.0
    assert torch.allclose(scores(model), exact(model))
    assert (scores(model) - before).abs().max() > 0.01


def _holding(model: Base) -> None:
    model.conv.register_forward_hook(lambda module, args, output: output * model.head.weight.sum())


def test_a_hook_that_holds_its_model_keeps_nothing_alive() -> None:
    model = Base().eval()
    _holding(model)
    ask(model)
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Closure(Base):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)
        self.function = Function(lambda x: self.norm(x))

    def after(self, x: Tensor) -> Tensor:
        y: Tensor = self.function(x)
        return y


def test_a_closure_over_the_models_own_module() -> None:
    model = Closure().train()
    with guard(model, X):
        result = ask(model)
    assert result.provenance["isolation"] == "guarded"
    assert torch.equal(scores(model), model.eval()(X)[:, 0])
    assert explained(model, X, Activations(layers=("norm",))).map.shape == (2, 4, 6, 7)


class Resized(Base):
    """Its buffer is empty until it has run, as those of observers are."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("least", torch.tensor([]))

    def after(self, x: Tensor) -> Tensor:
        least = x.detach().amin((0, 2, 3))
        self.get_buffer("least").resize_(least.shape).copy_(least)
        return x


@pytest.mark.parametrize("pair", SOME_PAIRS)
def test_buffers_that_get_their_size_in_a_forward(pair: tuple[str, str]) -> None:
    model, technique = Resized().eval(), TECHNIQUES[pair[0]]
    inputs, target = given(technique, X, 0)
    with guard(model, X):
        first, second = (explained(model, inputs, technique, backend=pair[1], target=target) for _ in range(2))
    assert torch.equal(first.map, second.map)


class Options(dict[str, float]):
    factor = 1.0


def test_a_dict_with_attributes() -> None:
    class Net(Base):
        def __init__(self) -> None:
            super().__init__()
            self.options = Options()

        def after(self, x: Tensor) -> Tensor:
            return self.options.factor * x

    model = Net().eval()
    ask(model)
    model.options.factor = 5.0
    assert torch.allclose(scores(model), exact(model))


def test_a_model_that_went_to_meta() -> None:
    model, technique = Base().eval(), FilterVisualization(layer="conv", channels=(0,), steps=1, size=6)
    explained(model, None, technique)
    with pytest.raises(ModelError, match="meta device"):
        explained(model.to("meta"), None, technique)


def test_reasons_are_not_mistaken() -> None:
    class Net(Base):
        def __init__(self) -> None:
            super().__init__()
            self._conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(self._conv(x).mean((2, 3)).detach())
            return logits

    with pytest.raises(LayerError, match="nearest: '_conv'"):
        explained(fx.symbolic_trace(Net().eval()), X, Activations(layers=("_convv",)))
    Net.__module__ = "laboratory.quantized_nets"
    with pytest.raises(LayerError, match="gradient is cut"):
        explained(Net().eval().requires_grad_(False), X, GradCAM(layers=("_conv",)), target=0)
