"""What lies beside a trunk is not its end: heads of detectors, maps of attention, features made larger."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from attribution import Activations, GradCAM, explain
from attribution.layers import activation_layers
from tests.conftest import BACKENDS, noise


class Boxes(nn.Module):
    """A detector: heads on two levels, each run once, after the trunk."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.heads = Heads()

    def forward(self, x: Tensor) -> Tensor:
        first = self.one(x).relu()
        boxes = self.heads([first, self.two(first).relu()])
        return torch.cat([box.flatten(2) for box in boxes], dim=2).sum(dim=2)


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.boxes = nn.ModuleList([nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(12, 4, 3, padding=1)])

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [box(map_) for box, map_ in zip(self.boxes, maps, strict=True)]


def test_a_box_head_is_neither_activation_nor_the_last_block() -> None:
    result = explain(Boxes(), noise(1, 3, 32, 48), Activations())
    assert [*result.maps] == ["one", "two"]
    assert [*explain(Boxes(), noise(1, 3, 32, 48), GradCAM(), target=0).maps] == ["two"]


class Spatial(nn.Module):
    """Features times a map of where to look: one channel, of the mean and the largest channel; or of more heads."""

    def __init__(self, features: nn.Module, width: int, *, heads: int = 1, deep: bool = False) -> None:
        super().__init__()
        self.f, self.softmax = features, heads > 1 or deep or width > 100
        middle = [nn.Conv2d(width, 8, 1), nn.Tanh(), nn.Conv2d(8, heads, 1)]
        attention = nn.Sequential(*middle) if deep else nn.Conv2d(width, heads, 1)
        self.sa = attention if self.softmax else nn.Conv2d(2, 1, 7, padding=3)
        self.fc = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.f(x)
        if self.softmax:
            weights = self.sa(x).flatten(2).softmax(dim=-1).mean(dim=1, keepdim=True)
            return self.fc((x.flatten(2) * weights).sum(dim=-1))  # type: ignore[no-any-return]
        x = x * self.sa(torch.cat([x.mean(1, True), x.amax(1, True)], dim=1)).sigmoid()
        return self.fc(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU())


def residual() -> nn.Module:
    return nn.Sequential(OrderedDict([*resnet18().named_children()][:-2]))


@pytest.mark.parametrize(
    ("net", "options", "end"),
    [
        (small, {}, "f"),
        (small, {"deep": True}, "f"),
        (residual, {}, "f.layer4"),
        (residual, {"heads": 8}, "f.layer4"),
        (residual, {"heads": 4, "deep": True}, "f.layer4"),
    ],
)
@BACKENDS
def test_a_map_of_attention_is_not_the_end_of_a_trunk(
    net: Any, options: dict[str, Any], end: str, backend: str
) -> None:
    model, inputs = Spatial(net(), 32 if net is small else 512, **options).eval(), noise(1, 3, 66, 98)
    (found,) = explain(model, inputs, GradCAM(), backend=backend, target=1).maps
    assert found == end
    assert activation_layers(model, inputs)[-1] == end


def test_attention_on_the_way_is_no_layer_of_its_resolution() -> None:
    class Stages(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 16, 3, 2), nn.Conv2d(16, 24, 3, 2)
            self.here, self.there, self.fc = nn.Conv2d(16, 1, 1), nn.Conv2d(24, 1, 1), nn.Linear(24, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x)
            x = self.two(x * self.here(x).sigmoid())
            return self.fc((x * self.there(x).sigmoid()).mean(dim=(2, 3)))  # type: ignore[no-any-return]

    assert activation_layers(Stages(), noise(1, 3, 33, 47)) == ("one", "two")


def test_what_magnifies_the_features_is_no_activation() -> None:
    class Reconstructing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.up, self.fc = small(), nn.Upsample(scale_factor=2), nn.Linear(32, 5)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.body(x)
            return self.fc(x.mean(dim=(2, 3))), self.up(x)

    model, inputs = Reconstructing(), noise(1, 3, 32, 48)
    assert activation_layers(model, inputs) == ("body.1", "body")
