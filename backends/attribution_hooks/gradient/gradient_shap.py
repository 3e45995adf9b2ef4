"""GradientSHAP in chunks of samples and examples."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from attribution.attributor import Run
from attribution.inputs.inputs import Inputs
from attribution.technique import Maps
from attribution.techniques.gradient.gradient_shap import GradientSHAP
from attribution_hooks.gradient.sums import GradientSums


class HooksGradientSHAP(GradientSums[GradientSHAP]):
    """raw = mean over k of ∂S/∂x at point k · (x[k] − b[k]): the sum over the points, whose factor is x[k] − b[k]."""

    technique_type: ClassVar[type[GradientSHAP]] = GradientSHAP
    only_shows: ClassVar[bool] = True

    def ends(self, run: Run[GradientSHAP]) -> list[Inputs]:
        """Each baseline that was drawn."""
        return [
            run.inputs.replaced({name: b.expand_as(run.inputs.values[name]) for name, b in start.items()})
            for _, start in run.technique.starts(run.inputs)
        ]

    def tell(self, run: Run[GradientSHAP], maps: Maps, ends: Sequence[Tensor]) -> None:
        """The gap to completeness."""
        assert run.clean is not None  # beside the score that is settled
        change = run.clean.clone()
        for (part, _), end in zip(run.technique.starts(run.inputs), ends, strict=True):
            change -= part * end
        total = torch.stack([map_.flatten(2).sum(dim=2) for map_ in maps.values()]).sum(dim=0)
        run.extras.update(run.technique.told(total - change, change))
