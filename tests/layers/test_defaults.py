"""The layers taken by default: a reviewed table for torchvision's classifiers, on tensors without data."""

from functools import cache
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import get_model

from attribution import Activations, GradCAM, LayerError, explain
from attribution.layers import activation_layers, grad_cam_default, grad_cam_layer
from tests.conftest import build, noise
from tests.layers.architectures import TORCHVISION

GRAD_CAM = {
    name: TORCHVISION[name]
    for name in (
        "alexnet",
        "vgg16",
        "vgg16_bn",
        "vgg19",
        "resnet18",
        "resnet50",
        "squeezenet1_1",
        "densenet121",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "mobilenet_v3_large",
        "googlenet",
        "inception_v3",
        "shufflenet_v2_x1_0",
        "mnasnet0_5",
        "regnet_x_400mf",
        "regnet_y_400mf",
        "efficientnet_b0",
        "efficientnet_v2_s",
        "convnext_tiny",
    )
}

ACTIVATIONS = {
    "alexnet": ("features.2", "features.5", "features.12"),
    "vgg16": ("features.4", "features.9", "features.16", "features.23", "features.30"),
    "vgg16_bn": ("features.6", "features.13", "features.23", "features.33", "features.43"),
    "resnet18": ("relu", "layer1", "layer2", "layer3", "layer4"),
    "resnet50": ("relu", "layer1", "layer2", "layer3", "layer4"),
    "squeezenet1_1": ("features.2", "features.5", "features.8"),
    "googlenet": ("maxpool1", "maxpool2", "maxpool3", "maxpool4"),
}

# Their constructors compute with small tensors, which have no values on the meta device.
ON_HOST = ("regnet_x_400mf", "regnet_y_400mf", "efficientnet_b0", "efficientnet_v2_s", "convnext_tiny", "swin_t")


MISSING: Any = lambda tensor, *args, **options: tensor  # noqa: E731  # in place of an initialisation


@cache
def bare(name: str) -> nn.Module:
    """A torchvision model without values: its parameters lie on the meta device."""
    options = {"init_weights": False, "aux_logits": True} if name in ("googlenet", "inception_v3") else {}
    if name in ON_HOST:
        skipped = ("kaiming_normal_", "kaiming_uniform_", "trunc_normal_", "normal_", "uniform_")
        with mock.patch.multiple(nn.init, **dict.fromkeys(skipped, MISSING)):
            model = get_model(name, weights=None, **options)
    else:
        with torch.device("meta"):
            model = get_model(name, weights=None, **options)
    return model.to("meta").eval()  # type: ignore[no-any-return]


def picture(name: str, size: int | None = None) -> Tensor:
    size = size or (299 if name == "inception_v3" else 224)
    return torch.empty(1, 3, size, size, device="meta")


@pytest.mark.parametrize("name", GRAD_CAM)
def test_grad_cam(name: str) -> None:
    layer = grad_cam_layer(bare(name), picture(name))
    assert layer == GRAD_CAM[name]
    shapes: list[tuple[int, ...]] = []
    module = dict(bare(name).named_modules())[layer]
    handle = module.register_forward_hook(lambda module, args, output: shapes.append(tuple(output.shape)))
    with torch.no_grad():
        bare(name)(picture(name))
    handle.remove()
    assert len(shapes) == 1
    assert shapes[0][2] >= 7, "nothing coarser than the usual 7 × 7"


@pytest.mark.parametrize("name", ["vgg16", "resnet18", "resnet50", "densenet121", "squeezenet1_1", "mobilenet_v2"])
def test_grad_cam_does_not_depend_on_the_image_size(name: str) -> None:
    assert grad_cam_layer(bare(name), torch.empty(1, 3, 160, 256, device="meta")) == GRAD_CAM[name]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str) -> None:
    assert activation_layers(bare(name), picture(name)) == ACTIVATIONS[name]


@pytest.mark.parametrize("name", ["densenet121", "mobilenet_v2", "resnet50", "efficientnet_b0", "convnext_tiny"])
def test_one_activation_per_resolution(name: str) -> None:
    layers = activation_layers(bare(name), picture(name))
    heights: list[int] = []
    modules = dict(bare(name).named_modules())
    handles = [
        modules[layer].register_forward_hook(lambda module, args, output: heights.append(output.shape[2]))
        for layer in layers
    ]
    with torch.no_grad():
        bare(name)(picture(name))
    for handle in handles:
        handle.remove()
    assert len(layers) >= 4
    assert heights == sorted(set(heights), reverse=True)


@pytest.mark.parametrize(
    ("name", "layer", "tokens"),
    [
        ("vit_b_16", "encoder.layers.encoder_layer_11.ln_1", (1, 14, 14)),
        ("swin_t", "features.7.1.norm1", "channels_last"),
    ],
)
def test_tokens_are_the_last_blocks_first_norm(name: str, layer: str, tokens: object) -> None:
    assert grad_cam_default(bare(name), picture(name)) == (layer, tokens)


class Flat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("backend", ["hooks", "captum"])
def test_a_model_without_a_grid_is_refused(backend: str) -> None:
    for technique in (GradCAM(), Activations()):
        with pytest.raises(LayerError, match="Flat"):
            explain(Flat(), noise(1, 3, 2, 2), technique, backend=backend)


@pytest.mark.parametrize("backend", ["hooks", "captum"])
def test_the_choice_is_recorded_and_the_request_is_not_changed(backend: str) -> None:
    technique, model = GradCAM(), build("residual")
    result = explain(model, noise(1, 3, 17, 23), technique, backend=backend, target=0)
    assert technique.layers == ()
    assert isinstance(result.technique, GradCAM)
    assert result.technique.layers == ("body",)
    assert [*result.maps] == ["body"]


def test_a_changed_model_gets_another_default() -> None:
    model = build("cnn")
    assert isinstance(model, nn.Sequential)
    inputs = noise(1, 3, 17, 23)
    assert [*explain(model, inputs, GradCAM(), target=0).maps] == ["body"]
    model.body = nn.Sequential(nn.Conv2d(6, 8, 3), nn.MaxPool2d(2), nn.Conv2d(8, 8, 1), nn.AvgPool2d(1))
    assert [*explain(model, inputs, GradCAM(), target=0).maps] == ["body.2"]
