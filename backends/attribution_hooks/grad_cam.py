"""Grad-CAM by captured activations and ``autograd.grad``: one forward for all layers and targets."""

from typing import ClassVar

import torch
from torch import Tensor

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.technique import Maps
from attribution.techniques import GradCAM
from attribution_hooks.capture import capture


class HooksGradCAM(Attributor[GradCAM]):
    """`GradCAM` with the graph from the first requested layer on; no parameter gradient is formed."""

    technique_type: ClassVar[type[GradCAM]] = GradCAM
    backend: ClassVar[str] = "hooks"

    def compute(self, run: Run) -> Maps:
        """(N, T, h, w) for each layer."""
        names = self.technique.layers
        with torch.no_grad(), capture(run.model, names, leaf=True) as caught:
            logits = run.forward(run.inputs)
            activations = [caught[name] for name in names]
            for name, activation in zip(names, activations, strict=True):
                if activation.ndim != 4:
                    raise layers.not_a_map(name, tuple(activation.shape))
            target = run.select(logits)
            scores = logits.gather(1, target)
            columns = [
                self._gradients(scores[:, t], activations, last=t + 1 == target.shape[1])
                for t in range(target.shape[1])
            ]
        return {
            name: torch.stack([_weighted(activation, gradients[index]) for gradients in columns], dim=1)
            for index, (name, activation) in enumerate(zip(names, activations, strict=True))
        }

    def _gradients(self, scores: Tensor, activations: list[Tensor], *, last: bool) -> tuple[Tensor, ...]:
        if not scores.requires_grad:
            raise layers.no_influence(*self.technique.layers)
        gradients = torch.autograd.grad(scores.sum(), activations, retain_graph=not last, allow_unused=True)
        missing = [name for name, gradient in zip(self.technique.layers, gradients, strict=True) if gradient is None]
        if missing:
            raise layers.no_influence(*missing)
        return gradients


def _weighted(activation: Tensor, gradient: Tensor) -> Tensor:
    """Σ over channels of (spatial mean of the gradient) · activation: (N, h, w)."""
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * activation.detach()).sum(dim=1)
