"""Functions explained as models: the numbers of the same net as a module, and the user's modules as found."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import (
    Activations,
    FunctionModel,
    GradCAM,
    IntegratedGradients,
    ModelError,
    Occlusion,
    Saliency,
    ValueScore,
    compare,
    explain,
)
from attribution.technique import Technique
from attribution.testing import guard
from tests.conftest import BACKENDS, logit, noise


def net() -> nn.Sequential:
    """In train mode, with a dropout that would show."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Tanh(), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        return made.append(nn.Linear(5, 4)).double().train()


class Twice(nn.Module):
    """The same by hand."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).softmax(1) * 2  # type: ignore[no-any-return]


def twice(x: Tensor, inner: nn.Module) -> Tensor:
    return inner(x).softmax(1) * 2  # type: ignore[no-any-return]


class Holder:
    def __init__(self, inner: nn.Module) -> None:
        self.inner = inner

    def method(self, x: Tensor) -> Tensor:
        return twice(x, self.inner)

    __call__ = method


FORMS: dict[str, Callable[[nn.Module], Callable[..., Any]]] = {
    "closure": lambda inner: lambda x: inner(x).softmax(1) * 2,
    "partial": lambda inner: functools.partial(twice, inner=inner),
    "method": lambda inner: Holder(inner).method,
    "callable": Holder,
}
X = noise(2, 3, 9, 13, dtype=torch.float64)
QUESTIONS: dict[str, Technique] = {
    "saliency": Saliency(channels="none", absolute=False),
    "path": IntegratedGradients(steps=4),
    "windows": Occlusion(window=4, stride=3),
}


@BACKENDS
@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("form", FORMS)
def test_a_function_is_what_its_module_would_be(form: str, name: str, backend: str) -> None:
    inner = net()
    asked = FunctionModel(FORMS[form](inner))
    wanted = explain(Twice(inner).eval(), X, QUESTIONS[name], backend=backend, target=logit(1)).map
    inner.train()
    with guard(inner, X):
        found = explain(asked, X, QUESTIONS[name], backend=backend, target=logit(1)).map
    assert (found - wanted).abs().max() <= 1e-12 * wanted.abs().max()
    assert all(module.training for module in inner.modules()), "the user's mode"
    assert [*asked.used] == [inner]


@BACKENDS
def test_layers_have_names(backend: str) -> None:
    inner = net()
    asked = FunctionModel(lambda x: inner(x).softmax(1) * 2)
    wanted = explain(Twice(inner).eval(), X, GradCAM(layers=("inner.0",)), backend=backend, target=logit(2)).map
    found = explain(asked, X, GradCAM(layers=("used.0.0",)), backend=backend, target=logit(2)).map
    assert (found - wanted).abs().max() <= 1e-12 * wanted.abs().max()
    kept = explain(asked, X, Activations(layers=("used.0.0",)), backend=backend).maps["used.0.0"]
    assert torch.allclose(kept, inner[0](X), rtol=1e-12)


def test_functions_without_modules_and_of_several_inputs() -> None:
    asked = FunctionModel(lambda a, b: (a * b.exp()).sum((1, 2, 3)))
    pair = (X, X.flip(3) / 3)
    found = explain(asked, pair, Saliency(channels="none", absolute=False), target=ValueScore())
    assert torch.allclose(found.maps["input.0"][:, 0], pair[1].exp(), rtol=1e-12)
    assert torch.allclose(found.maps["input.1"][:, 0], pair[0] * pair[1].exp(), rtol=1e-12)
    assert compare(asked, pair, Saliency(), target=ValueScore()).holds


def test_what_is_refused() -> None:
    for wrong in (net(), nn.Conv2d, 3, None):
        with pytest.raises(ModelError, match="FunctionModel takes a function"):
            FunctionModel(wrong)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"or FunctionModel\(function\)"):
        explain(lambda x: x, X, Saliency())  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"nn\.Module$"):
        explain(nn.Conv2d, X, Saliency())  # type: ignore[arg-type]
