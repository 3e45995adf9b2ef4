"""How far other libraries are off ours, measured anew: one function for each row of ``make_disagreements.py``.

Bundled SqueezeNet 1.1 on scikit-image's photo "coffee" unless a function says otherwise; nothing is downloaded.
"""

import copy
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attribution import (
    EigenCAM,
    FinerScore,
    GradCAM,
    GradCAMPlusPlus,
    GuidedBackprop,
    IntegratedGradients,
    ScoreCAM,
    Technique,
    explain,
    zoo,
)
from benchmarks.peers.pytorch_grad_cam import scaled
from benchmarks.peers.tap import Tap, grad_cam, tap

LAYER, BEFORE_IN_PLACE = "features.12", "features.12.expand3x3"
FIRES = tuple(f"features.{index}" for index in (7, 9, 10, 12))
STEPS = 5
SMALL, SCORED = (64, 64), "features.4"
"""A small image and a layer of few channels, each of which is a forward."""


class Measured(NamedTuple):
    """How far a library is off ours, and how far once ours are computed in its way; parts of the largest value."""

    size: float
    left: float


@cache
def _shown() -> tuple[nn.Module, Tensor, int]:
    loaded = zoo.load("bundled:squeezenet1_1")
    return loaded.model, loaded.inputs(zoo.sample_photo("coffee")), loaded.index("espresso")


def _off(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / torch.maximum(a.abs().max(), b.abs().max()))


def _raw(technique: Technique, backend: str = "hooks", layer: str = LAYER, **given: Any) -> Tensor:
    model, image, target = _shown()
    return explain(model, image, technique, backend=backend, **{"target": target} | given).raw[layer][:, 0]


def _tap(layer: str = LAYER) -> Tap:
    model, image, target = _shown()
    return tap(copy.deepcopy(model), layer, image, [target])


def _like(weights: Tensor, activation: Tensor) -> Tensor:
    return (weights * activation).sum(dim=1)


def plus_plus(backend: str, alpha: Callable[[Tensor, Tensor], Tensor]) -> Measured:
    """Theirs, and the formula with their α (g, Σ A); each map by its own maximum, since none has a unit."""
    technique, held = GradCAMPlusPlus(layers=(LAYER,)), _tap()
    a, g = held.before, held.before_gradient
    weights = (alpha(g, a.sum(dim=(2, 3), keepdim=True)) * g.relu()).sum(dim=(2, 3), keepdim=True)
    theirs, ours, way = (map_ / map_.max() for map_ in (_raw(technique, backend), _raw(technique), _like(weights, a)))
    return Measured(_off(theirs, ours), _off(theirs, way))


def in_place(backend: str) -> Measured:
    """Theirs of a layer that the next module overwrites, and Grad-CAM of what is left there."""
    technique, held = GradCAM(layers=(BEFORE_IN_PLACE,)), _tap(BEFORE_IN_PLACE)
    gradient = held.after_gradient if backend == "torchcam" else held.before_gradient
    theirs = _raw(technique, backend, BEFORE_IN_PLACE)
    way = grad_cam(held.after, gradient)[:, 0]
    return Measured(_off(theirs, _raw(technique, layer=BEFORE_IN_PLACE)), _off(theirs, way))


def eigen() -> Measured:
    """The part of the maps whose sign is the other one, and what is left where it is turned."""
    model, image, _ = _shown()
    ours, theirs = (
        explain(model, image, EigenCAM(layers=FIRES), backend=backend).raw for backend in ("hooks", "pytorch_grad_cam")
    )
    signs = {layer: float((ours[layer] * theirs[layer]).sum().sign()) for layer in FIRES}
    turned = sum(sign < 0 for sign in signs.values()) / len(FIRES)
    return Measured(turned, max(_off(signs[layer] * theirs[layer], ours[layer]) for layer in FIRES))


def score(backend: str, larger: Callable[[Tensor], Tensor]) -> Measured:
    """Theirs, ours, and the formula with their masks (K, H, W) of the channels (K, h, w)."""
    model, image, target = _shown()
    small, technique = F.interpolate(image, SMALL, mode="area"), ScoreCAM(layers=(SCORED,))
    theirs, ours = (
        explain(model, small, technique, backend=by, target=target).raw[SCORED] for by in (backend, "hooks")
    )
    with torch.no_grad():
        channels = tap(copy.deepcopy(model), SCORED, small, [target]).before[0]
        scores = torch.cat([model(part)[:, target] for part in (small * larger(channels)[:, None]).split(16)])
        way = torch.einsum("k,khw->hw", scores.softmax(0), channels)
    return Measured(_off(theirs, ours), _off(theirs[0, 0], way))


def unit(channels: Tensor) -> Tensor:
    """Each channel from 0 to 1."""
    low, high = channels.amin((1, 2), keepdim=True), channels.amax((1, 2), keepdim=True)
    return (channels - low) / (high - low + 1e-8)


def enlarged(channels: Tensor, *, corners: bool) -> Tensor:
    """(K, h, w) → (K, H, W) of the small image."""
    return F.interpolate(channels[None], SMALL, mode="bilinear", align_corners=corners)[0]


def finer() -> Measured:
    """The two libraries, scaled to 0…1 and enlarged as pytorch-grad-cam does, and ours in either reading."""
    from pytorch_grad_cam import FinerCAM as Softmax
    from torchcam.methods import FinerCAM as Equal

    model, image, target = copy.deepcopy(_shown()[0]), *_shown()[1:]
    technique, size = GradCAM(layers=(LAYER,)), tuple(image.shape[2:])
    soft, equal = (
        scaled(_raw(technique, target=FinerScore(target, strength=strength, weights=weights))[None], size)
        for strength, weights in ((1, "softmax"), (0.6, "equal"))
    )
    with Equal(model, LAYER) as method:
        by_torchcam = scaled(method(target, model(image), normalized=False)[0].detach()[None], size)
    by_pytorch = torch.from_numpy(Softmax(model, [model.get_submodule(LAYER)])(image, target_idx=target))
    return Measured(
        float((by_torchcam - by_pytorch).abs().max()),
        max(float((equal - by_torchcam).abs().max()), float((soft - by_pytorch).abs().max())),
    )


def trapezoid() -> Measured:
    """In float64; what is left is seen where ours are scaled by (n − 1)/n."""
    model, image, target = _shown()
    wide, technique = copy.deepcopy(model).double(), IntegratedGradients(steps=STEPS, rule="riemann_trapezoid")
    ours, theirs = (
        explain(wide, image.double(), technique, backend=backend, target=target).map for backend in ("hooks", "captum")
    )
    return Measured(_off(theirs, ours), _off(theirs, ours * (STEPS - 1) / STEPS))


class Functional(nn.Module):
    """A net whose ReLUs are functions."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 3

    def forward(self, x: Tensor) -> Tensor:
        """(N, 5)."""
        return F.relu(self.second(F.relu(self.first(x)))).mean((2, 3))


def guided() -> Measured:
    """Theirs of a small net whose ReLUs are functions, and its plain gradient."""
    from captum import attr

    image = torch.randn(1, 3, 17, 23, generator=torch.Generator().manual_seed(1)).requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = attr.GuidedBackprop(Functional()).attribute(image, target=1)
    ours = explain(Functional(), image.detach(), GuidedBackprop(), target=1).map[:, 0]
    plain = torch.autograd.grad(Functional()(image)[0, 1], image)[0]
    return Measured(_off(theirs, ours), _off(theirs, plain))


def replaced() -> Measured:
    """The part of a model's ReLUs that are another module afterwards; what is left is the part whose class is too."""
    from pytorch_grad_cam import GuidedBackpropReLUModel

    model, image = copy.deepcopy(_shown()[0]), _shown()[1].clone()
    names = [name for name, module in model.named_modules() if isinstance(module, nn.ReLU)]
    before = [model.get_submodule(name) for name in names]
    GuidedBackpropReLUModel(model)(image, target_category=_shown()[2])
    after = [model.get_submodule(name) for name in names]
    other = sum(a is not b for a, b in zip(before, after, strict=True)) / len(names)
    return Measured(other, sum(not isinstance(module, nn.ReLU) for module in after) / len(names))
