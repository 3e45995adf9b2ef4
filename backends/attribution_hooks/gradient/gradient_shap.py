"""GradientSHAP in chunks of samples and examples."""

from typing import ClassVar

import torch

from attribution.attributor import Run
from attribution.technique import Maps
from attribution.techniques.gradient.gradient_shap import GradientSHAP
from attribution_hooks.gradient.sums import GradientSums, scores


class HooksGradientSHAP(GradientSums[GradientSHAP]):
    """raw = mean over k of ∂S/∂x at point k · (x[k] − b[k]): the sum over the points, whose factor is x[k] − b[k]."""

    technique_type: ClassVar[type[GradientSHAP]] = GradientSHAP

    def tell(self, run: Run[GradientSHAP], maps: Maps) -> None:
        """The gap to completeness, for which each baseline that was drawn goes through the model."""
        assert run.clean is not None  # beside the score that is settled
        change = run.clean.clone()
        for part, start in run.technique.starts(run.inputs):
            begin = run.inputs.replaced({name: b.expand_as(run.inputs.values[name]) for name, b in start.items()})
            change -= part * scores(run, begin, self.rows(run))
        total = torch.stack([map_.flatten(2).sum(dim=2) for map_ in maps.values()]).sum(dim=0)
        run.extras.update(run.technique.told(total - change, change))
