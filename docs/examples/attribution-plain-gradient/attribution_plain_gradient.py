"""Plain gradient: a technique and a backend in one module."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from attribution import Attributor, Inputs, Run, Technique
from attribution.technique import Kind, Maps


@dataclass(frozen=True, kw_only=True)
class PlainGradient(Technique):
    """map[i, j] = max over input channels of abs(∂score[target] / ∂x[c, i, j]); (N, T, H, W), score per input unit."""

    name: ClassVar[str] = "plain_gradient"
    kind: ClassVar[Kind] = "heatmap"
    needs_target: ClassVar[bool] = True

    def finish(self, raw: Maps, inputs: Inputs) -> Maps:
        """The raw map itself; it lies on the pixels already."""
        return raw


class AutogradPlainGradient(Attributor[PlainGradient]):
    """`PlainGradient` by ``torch.autograd.grad``, one backward pass per target."""

    technique_type: ClassVar[type[PlainGradient]] = PlainGradient
    backend: ClassVar[str] = "autograd"

    def compute(self, run: Run[PlainGradient]) -> Maps:
        """(N, T, H, W) under ``"input"``."""
        x = run.inputs.tensor.requires_grad_()
        scores = run.scores(run.forward(x))
        maps = []
        for column in scores.unbind(1):
            (gradient,) = torch.autograd.grad(column.sum(), x, retain_graph=True)
            maps.append(gradient.abs().amax(dim=1))
        return {"input": torch.stack(maps, dim=1)}
