"""Default layers of trunks in other people's wrappings: adapters, tuples, dataclasses, pyramids, U-Nets."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from attribution import Activations, GradCAM, LayerError, explain
from attribution.layers import activation_layers, grad_cam_layer
from tests.conftest import BACKENDS, build, noise


class Features(nn.Module):
    """Three stages that give what the test asks for: the last map, or all of them in a container."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.stages = nn.ModuleList(nn.Conv2d(6 + 2 * i, 8 + 2 * i, 3, stride=2, padding=1) for i in range(3))

    def forward(self, x: Tensor) -> Any:
        maps = [self.stem(x).relu()]
        for stage in self.stages:
            maps.append(stage(maps[-1]).relu())
        forms = {
            "list": lambda: maps,
            "tuple": lambda: (maps[-1], None),
            "dict": lambda: {str(i): map_ for i, map_ in enumerate(maps)},
            "dataclass": lambda: Maps(maps[-1]),
        }
        return forms[self.form]()


@dataclass
class Maps:
    last: Tensor


class Wrapped(nn.Module):
    """An adapter in front, the trunk, and a linear classifier of its last map."""

    def __init__(self, form: str, front: nn.Module | None = None) -> None:
        super().__init__()
        self.front = front or nn.Identity()
        self.backbone = Features(form)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        out = self.backbone(self.front(x))
        last = {
            "list": lambda: out[-1],
            "tuple": lambda: out[0],
            "dict": lambda: out["3"],
            "dataclass": lambda: out.last,
        }
        return self.head(last[self.backbone.form]().mean(dim=(2, 3)))  # type: ignore[no-any-return]


FRONTS = {
    "none": lambda: None,
    "grey": lambda: nn.Conv2d(3, 3, 1),
    "normalisation": lambda: nn.BatchNorm2d(3),
    "large": lambda: nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 3, 3, padding=1)),
}


@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("form", ["list", "tuple", "dict", "dataclass"])
@BACKENDS
def test_the_trunk_is_found_behind_an_adapter_and_inside_what_it_returns(form: str, front: str, backend: str) -> None:
    model = Wrapped(form, FRONTS[front]()).eval()
    result = explain(model, noise(3, 3, 34, 46), GradCAM(upsample=False), backend=backend, target=2)
    assert [*result.maps] == ["backbone.stages.2"]
    assert result.map.shape == (3, 1, 3, 3)


def test_activations_are_those_of_the_trunk() -> None:
    model = Wrapped("list", nn.Conv2d(3, 3, 1)).eval()
    result = explain(model, noise(1, 3, 34, 46), Activations())
    assert [*result.maps] == ["front", "backbone.stem", "backbone.stages.0", "backbone.stages.1", "backbone.stages.2"]


class Grey(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.to_rgb, self.backbone = nn.Conv2d(1, 3, 1), net

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone(self.to_rgb(x))  # type: ignore[no-any-return]


@BACKENDS
def test_a_grey_image_before_a_residual_net(backend: str) -> None:
    result = explain(Grey(resnet18(num_classes=4)), noise(1, 1, 64, 80), GradCAM(), backend=backend)
    assert result.technique == GradCAM(layers=("backbone.layer4",))


class UNet(nn.Module):
    """Three levels down, two up, and a map for each class; or its mean, as logits."""

    def __init__(self, *, pooled: bool, classes: int = 5, wide: int = 1) -> None:
        super().__init__()
        self.pooled = pooled
        down = lambda i, o: nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(i, o, 3, padding=1), nn.ReLU())  # noqa: E731  # short
        up = lambda i, o: nn.Sequential(nn.Conv2d(i, o * wide, 3, padding=1), nn.ReLU(), nn.Conv2d(o * wide, o, 1))  # noqa: E731  # short
        self.inside = nn.Conv2d(3, 6, 3, padding=1)
        self.down1, self.down2, self.down3 = down(6, 8), down(8, 12), down(12, 16)
        self.up = nn.Upsample(scale_factor=2)
        self.up2, self.up1 = up(16 + 12, 8), up(8 + 8, 6)
        self.out = nn.Conv2d(6, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(self.inside(x))
        second = self.down2(first)
        third = self.up2(torch.cat([self.up(self.down3(second)), second], dim=1))
        maps = self.out(self.up1(torch.cat([self.up(third), first], dim=1)))
        return maps.mean(dim=(2, 3)) if self.pooled else maps  # type: ignore[no-any-return]


@pytest.mark.parametrize("wide", [1, 30], ids=["", "wide decoder"])
@BACKENDS
def test_a_u_net_is_read_at_its_bottom(backend: str, wide: int) -> None:
    model = UNet(pooled=True, wide=wide)
    result = explain(model, noise(3, 3, 32, 48), GradCAM(upsample=False), backend=backend, target=1)
    assert [*result.maps] == ["down3"]
    assert result.map.shape == (3, 1, 4, 6)
    assert grad_cam_layer(UNet(pooled=False, wide=wide), noise(1, 3, 32, 48)) == "down3"
    assert grad_cam_layer(Grey(UNet(pooled=True)), noise(1, 1, 32, 48)) == "backbone.down3"


def test_as_many_classes_as_a_block_has_channels() -> None:
    assert grad_cam_layer(UNet(pooled=False, classes=8), noise(1, 3, 32, 48)) == "down3"
    assert grad_cam_layer(UNet(pooled=True, classes=16), noise(1, 3, 32, 48)) == "down3"


def test_a_decoder_beyond_the_size_of_the_image() -> None:
    large = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(5, 90, 3), nn.ReLU(), nn.Conv2d(90, 5, 3))
    model = nn.Sequential(OrderedDict(net=UNet(pooled=False), large=large))
    assert grad_cam_layer(model, noise(1, 3, 32, 48)) == "net.down3"


class Pyramid(nn.Module):
    """A torchvision pyramid whose finest level, or every level, is classified."""

    def __init__(self, levels: tuple[str, ...]) -> None:
        super().__init__()
        self.levels = levels
        self.backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
        self.head = nn.Linear(256, 5)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.backbone(x)
        return sum(self.head(maps[level].mean(dim=(2, 3))) for level in self.levels)  # type: ignore[no-any-return]


@pytest.mark.parametrize("levels", [("0",), ("0", "1", "2", "3")])
def test_a_pyramid_is_read_where_it_begins(levels: tuple[str, ...]) -> None:
    model, inputs = Pyramid(levels).eval(), noise(1, 3, 64, 96)
    result = explain(model, inputs, GradCAM(), target=0)
    assert [*result.maps] == ["backbone.body.layer4"]
    assert [name.rpartition(".")[2] for name in activation_layers(model, inputs)] == [
        "relu",
        "layer1",
        "layer2",
        "layer3",
        "layer4",
    ]


def test_what_follows_a_block_is_weighed() -> None:
    """A stem before a trunk that cannot be named, since it runs twice, is not the answer."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.trunk = nn.Conv2d(3, 6, 3), nn.Sequential(nn.Conv2d(6, 6, 3), nn.ReLU())
            self.head = nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.trunk(self.trunk(self.stem(x))).mean(dim=(2, 3)))  # type: ignore[no-any-return]

    with pytest.raises(LayerError, match="no default layer"):
        explain(Twice(), noise(1, 3, 17, 23), GradCAM())


def test_a_classifier_by_convolution_is_not_the_last_block() -> None:
    convolutions = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 1)]
    model = nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert grad_cam_layer(model, noise(1, 3, 17, 23)) == "2"
    assert grad_cam_layer(nn.Sequential(nn.Conv2d(3, 5, 3), *model[-2:]), noise(1, 3, 17, 23)) == "0"


def test_idle_parts_weigh_nothing() -> None:
    model = build("cnn")
    assert isinstance(model, nn.Sequential)
    assert isinstance(model.body, nn.Module)
    model.body.add_module("idle", nn.Conv2d(300, 300, 5))
    assert grad_cam_layer(model, noise(1, 3, 17, 23)) == "body"


def test_one_channel_is_taken_where_there_is_nothing_else() -> None:
    model = nn.Sequential(nn.Conv2d(3, 1, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 5))
    assert grad_cam_layer(model, noise(1, 3, 17, 23)) == "0"


class Mirrored(nn.Module):
    """The mean of an image's and its mirror image's logits; or a head of both embeddings."""

    def __init__(self, *, siamese: bool) -> None:
        super().__init__()
        self.m, self.head = resnet18(num_classes=5), nn.Linear(5, 5) if siamese else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.m(x) + self.m(x.flip(-1))) / 2)  # type: ignore[no-any-return]


@pytest.mark.parametrize("siamese", [False, True])
@pytest.mark.parametrize("technique", [GradCAM(), Activations()])
def test_a_trunk_that_runs_twice_is_named_with_its_run(technique: Any, siamese: bool) -> None:
    model, inputs = Mirrored(siamese=siamese).eval(), noise(1, 3, 64, 80)
    with pytest.raises(LayerError, match=r"runs several times .* layers=\('m\.layer4#0',\)$"):
        explain(model, inputs, technique)
    again = type(technique)(layers=("m.layer4#0",))
    assert [*explain(model, inputs, again).maps] == ["m.layer4#0"]


def test_no_layer_is_named_where_none_serves() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 17 * 23, 5))
    for technique in (GradCAM(), Activations()):
        with pytest.raises(LayerError) as refused:
            explain(model, noise(1, 3, 17, 23), technique)
        assert "…" not in str(refused.value)
        assert "e.g." not in str(refused.value)
