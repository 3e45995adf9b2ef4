"""Answers from the definition, one image per forward, for the nets of ``tests.models.mixing``."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from attribution import Activations, GradCAM, Occlusion, Technique
from tests.conftest import noise
from tests.oracles.forwards import occlusions

X = noise(3, 3, 13, 17, dtype=torch.float64)

OCCLUSION = Occlusion(window=7, stride=5, baseline=0.2)


def occluded(model: nn.Module, image: Tensor) -> Tensor:
    """(H, W) for class 1."""
    return occlusions(model, image, OCCLUSION)[0, 1]


def weighted(model: Any, image: Tensor) -> Tensor:
    """Grad-CAM (h, w) of the stem for class 1, before the ReLU."""
    kept: list[Tensor] = []
    handle = model.stem.register_forward_hook(lambda module, args, output: kept.append(output))
    score = model(image)[0, 1]
    handle.remove()
    (gradient,) = torch.autograd.grad(score, kept[0])
    return (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1)[0].detach()


def output_of_body(model: Any, image: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.body(model.mix(model.stem(image).relu()))[0]
        return found


QUESTIONS: dict[str, tuple[Technique, Callable[[nn.Module, Tensor], Tensor]]] = {
    "occlusion": (OCCLUSION, occluded),
    "grad_cam": (GradCAM(layers=("stem",), relu=False), weighted),
    "activations": (Activations(layers=("body",)), output_of_body),
}
