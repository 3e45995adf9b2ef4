"""``Case``: a drawn model with images and the questions that it is asked."""

import copy
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attribution import Occlusion
from attribution.scores.classes import Of
from tests.conftest import noise
from tests.drawn.network import network


@dataclass(frozen=True)
class Case:
    """All in float64.

    Attributes:
        model: In eval mode.
        rounded: The same in float32.
        inputs: (N, C, H, W).
        target: (N, T).
        occlusion: Fits the images.
        of: The score that is explained by it.
        layers: Up to two layers with a map that run once.
    """

    model: nn.Module
    rounded: nn.Module
    inputs: Tensor
    target: Tensor
    occlusion: Occlusion
    of: Of
    layers: tuple[str, ...]

    def __repr__(self) -> str:
        told = [f"inputs {tuple(self.inputs.shape)} {self.inputs.stride()}", f"target {self.target.tolist()}"]
        return "\n".join([*told, f"{self.occlusion} of {self.of}", f"layers {self.layers}", f"{self.model}"])


def case(draw: random.Random) -> Case:
    classes, channels = draw.randint(3, 5), draw.choice((1, 3))
    size = (draw.randint(9, 19), draw.randint(9, 19))
    model = network(draw, (channels, *size), classes)
    inputs = noise(draw.choice((1, 1, 2, 3)), channels, *size, dtype=torch.float64, seed=draw.randrange(1000))
    layout = draw.choice(("plain", "plain", "model", "inputs", "both"))
    if layout in ("model", "both"):
        model = model.to(memory_format=torch.channels_last)
    if layout in ("inputs", "both"):
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    columns = draw.randint(1, 3)
    target = torch.tensor([draw.sample(range(classes), columns) for _ in inputs])
    window = tuple(draw.randint(side // 4, side // 2) for side in size)
    stride = tuple(draw.randint((2 * side + 2) // 3, side) for side in window)
    technique: dict[str, Any] = {"window": window, "stride": stride}
    technique["baseline"] = draw.choice((0.0, -1.0, 3.0, tuple(0.5 * c - 2.0 for c in range(channels))))
    of: Of = draw.choice(("logit", "logit", "probability"))
    technique["border"] = draw.choice(("cover", "cover", "drop"))
    rounded = copy.deepcopy(model).float()
    return Case(model, rounded, inputs, target, Occlusion(**technique), of, _layers(draw, model, inputs))


def _layers(draw: random.Random, model: nn.Module, inputs: Tensor) -> tuple[str, ...]:
    """Layers that run once and give a map for each image."""
    runs: Counter[str] = Counter()
    maps: list[str] = []

    def note(name: str, output: Any) -> None:
        runs[name] += 1
        if isinstance(output, Tensor) and output.ndim == 4 and len(output) == len(inputs):
            maps.append(name)

    handles = [
        module.register_forward_hook(lambda module, args, output, name=name: note(name, output))
        for name, module in model.named_modules()
        if name
    ]
    with torch.no_grad():
        model(inputs.clone())
    for handle in handles:
        handle.remove()
    once = sorted(name for name in set(maps) if runs[name] == 1)
    return tuple(draw.sample(once, min(2, len(once))))
