"""Saliency maps: a technique and a backend in one module."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attribution import Attributor, Run, Technique
from attribution.technique import Kind, Maps


@dataclass(frozen=True, kw_only=True)
class Saliency(Technique):
    """map[i, j] = max over input channels of abs(∂logit[target] / ∂x[c, i, j]); (N, T, H, W), logits per input unit."""

    name: ClassVar[str] = "saliency"
    kind: ClassVar[Kind] = "heatmap"
    needs_target: ClassVar[bool] = True

    def finish(self, raw: Maps, inputs: Tensor) -> Maps:
        """The raw map itself; it lies on the pixels already."""
        return raw


class AutogradSaliency(Attributor[Saliency]):
    """`Saliency` by ``torch.autograd.grad``, one backward pass per target."""

    technique_type: ClassVar[type[Saliency]] = Saliency
    backend: ClassVar[str] = "autograd"

    def compute(self, run: Run) -> Maps:
        """(N, T, H, W) under ``"input"``."""
        x = run.inputs.requires_grad_()
        logits = run.forward(x)
        scores = logits.gather(1, run.select(logits))
        maps = []
        for column in scores.unbind(1):
            (gradient,) = torch.autograd.grad(column.sum(), x, retain_graph=True)
            maps.append(gradient.abs().amax(dim=1))
        return {"input": torch.stack(maps, dim=1)}
