"""Integrated gradients in chunks of points and examples."""

from typing import ClassVar

import torch

from attribution.attributor import Run
from attribution.technique import Maps
from attribution.techniques.gradient.integrated_gradients import IntegratedGradients
from attribution_hooks.gradient.sums import GradientSums, scores


class HooksIntegratedGradients(GradientSums[IntegratedGradients]):
    """raw = Σ over k of w[k] · ∂S/∂x at point k · (x − b): the sum over the points, whose factor is x − b."""

    technique_type: ClassVar[type[IntegratedGradients]] = IntegratedGradients

    def tell(self, run: Run[IntegratedGradients], maps: Maps) -> None:
        """The gap to completeness, for which the baseline goes through the model."""
        assert run.clean is not None  # beside the score that is settled
        start = run.technique.start_of(run.inputs)
        begin = run.inputs.replaced({name: b.expand_as(run.inputs.values[name]) for name, b in start.items()})
        total = torch.stack([map_.flatten(2).sum(dim=2) for map_ in maps.values()]).sum(dim=0)
        change = run.clean - scores(run, begin, self.rows(run))
        run.extras.update(run.technique.told(total - change, change))
