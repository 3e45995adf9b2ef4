"""The copy that is run instead of the user's model: it shares the weights, and never falls behind."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import GradCAM, ModelError, Occlusion, explain
from tests.conftest import build, logit, noise


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = build("residual")

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]


class Configured(Wrapped):
    """Its plain attributes change what it computes."""

    def __init__(self) -> None:
        super().__init__()
        self._scale = 1.0
        self.settings: dict[str, Any] = {"scales": [1.0]}
        self.mask = torch.ones(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) * self._scale * self.settings["scales"][0] * self.mask  # type: ignore[no-any-return]


def change_private(model: Configured) -> None:
    model._scale = 2.0


def change_nested(model: Configured) -> None:
    model.settings["scales"][0] = 2.0


def change_tensor(model: Configured) -> None:
    model.mask.fill_(2.0)


def change_parameter(model: Configured) -> None:
    head = model.net.get_submodule("head.2")
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.weight.mul_(2)
        head.bias.mul_(2)


def change_by_hook(model: Configured) -> None:
    model.net.register_forward_hook(lambda module, args, output: 2 * output)


def change_module(model: Configured) -> None:
    model.net = nn.Sequential(model.net, Double())


class Double(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


@pytest.mark.parametrize(
    "change",
    [change_private, change_nested, change_tensor, change_parameter, change_by_hook, change_module],
    ids=lambda change: change.__name__,
)
@pytest.mark.parametrize("backend", ["hooks", "captum"])
def test_a_change_of_the_model_is_seen(change: Callable[[Configured], None], backend: str) -> None:
    model, inputs = Configured(), noise(1, 3, 17, 23)
    technique = Occlusion(window=9, stride=8)
    before = explain(model, inputs, technique, backend=backend, target=logit(1))
    change(model)
    after = explain(model, inputs, technique, backend=backend, target=logit(1))
    assert before.scores is not None
    assert after.scores is not None
    assert torch.allclose(after.scores, 2 * before.scores)
    assert torch.allclose(after.map, 2 * before.map, atol=1e-6)


def test_the_weights_are_not_copied() -> None:
    seen: list[int] = []

    class Telling(Wrapped):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(self.net.get_parameter("stem.0.weight").data_ptr())
            return super().forward(x)

    model = Telling()
    explain(model, noise(1, 3, 17, 23), GradCAM(layers=("net.body",)))
    assert set(seen) == {model.net.get_parameter("stem.0.weight").data_ptr()}


def test_a_lazy_model_is_refused_and_stays_lazy() -> None:
    lazy = nn.LazyConv2d(4, 3)
    model = nn.Sequential(lazy, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ModelError, match="lazy parameters"):
        explain(model, noise(1, 3, 17, 23), GradCAM(layers=("0",)))
    assert lazy.has_uninitialized_params()
