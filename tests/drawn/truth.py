"""What two techniques mean, in loops over the model itself: one forward per covered image, plain autograd."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attribution import Occlusion


def starts(size: int, window: int, stride: int, border: str) -> list[int]:
    found = [0]
    while found[-1] + window < size:
        found.append(found[-1] + stride)
    return [start for start in found if border == "cover" or start + window <= size]


@torch.no_grad()
def occlusion(model: nn.Module, inputs: Tensor, technique: Occlusion, target: Tensor, of: str) -> tuple[Tensor, Tensor]:
    """The map (N, T, H, W), and the largest |score| of each target in its clean and covered images (N, T)."""
    height, width = inputs.shape[2:]
    cover: Sequence[Any] = (
        technique.baseline if isinstance(technique.baseline, tuple) else (technique.baseline,) * inputs.shape[1]
    )
    total, count = inputs.new_zeros(*target.shape, height, width), inputs.new_zeros(height, width)
    sizes = inputs.new_zeros(target.shape)

    def score(image: Tensor, classes: Tensor) -> Tensor:
        logits: Tensor = model(image.clone())[0]
        return {"logit": logits, "probability": logits.softmax(dim=0)}[of][classes]

    for n, classes in enumerate(target):
        clean = score(inputs[n : n + 1], classes)
        sizes[n] = clean.abs()
        for top in starts(height, technique.size[0], technique.step[0], technique.border):
            for left in starts(width, technique.size[1], technique.step[1], technique.border):
                here = (slice(top, top + technique.size[0]), slice(left, left + technique.size[1]))
                image = inputs[n : n + 1].clone()
                for channel, value in enumerate(cover):
                    image[0, channel, here[0], here[1]] = value
                covered = score(image, classes)
                sizes[n] = torch.maximum(sizes[n], covered.abs())
                total[n, :, here[0], here[1]] += (clean - covered)[:, None, None]
                if n == 0:
                    count[here[0], here[1]] += 1
    return total / count.clamp(min=1), sizes


def grad_cam(
    model: nn.Module, inputs: Tensor, layers: Sequence[str], target: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Layer → raw map (N, T, h, w), and the size (N, T) that its rounding goes by: Σ mean|gradient| · max|output|.

    A layer's tensor is kept, and the network goes on with a copy of it; who else reads the tensor counts too.
    """
    kept: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor) -> Tensor:
        kept[name] = output
        return output.clone()

    handles = [
        model.get_submodule(name).register_forward_hook(lambda module, args, output, name=name: keep(name, output))
        for name in layers
    ]
    try:
        scores = model(inputs.clone().requires_grad_()).gather(1, target)
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for name in layers:
        output = kept[name]
        maps, sizes = [], []
        for column in scores.unbind(1):
            (gradient,) = torch.autograd.grad(column.sum(), output, retain_graph=True, allow_unused=True)
            gradient = torch.zeros_like(output) if gradient is None else gradient
            maps.append((gradient.mean(dim=(2, 3), keepdim=True) * output.detach()).sum(dim=1))
            sizes.append((gradient.abs().mean(dim=(2, 3)) * output.detach().abs().amax(dim=(2, 3))).sum(dim=1))
        found[name] = torch.stack(maps, dim=1), torch.stack(sizes, dim=1)
    return found
