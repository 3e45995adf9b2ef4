"""Integrated gradients in chunks of points and examples."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from attribution.attributor import Run
from attribution.inputs.inputs import Inputs
from attribution.technique import Maps
from attribution.techniques.gradient.integrated_gradients import IntegratedGradients
from attribution_hooks.gradient.sums import GradientSums


class HooksIntegratedGradients(GradientSums[IntegratedGradients]):
    """raw = Σ over k of w[k] · ∂S/∂x at point k · (x − b): the sum over the points, whose factor is x − b."""

    technique_type: ClassVar[type[IntegratedGradients]] = IntegratedGradients
    only_shows: ClassVar[bool] = True

    def ends(self, run: Run[IntegratedGradients]) -> list[Inputs]:
        """The baseline."""
        start = run.technique.start_of(run.inputs)
        return [run.inputs.replaced({name: b.expand_as(run.inputs.values[name]) for name, b in start.items()})]

    def tell(self, run: Run[IntegratedGradients], maps: Maps, ends: Sequence[Tensor]) -> None:
        """The gap to completeness."""
        assert run.clean is not None  # beside the score that is settled
        total = torch.stack([map_.flatten(2).sum(dim=2) for map_ in maps.values()]).sum(dim=0)
        change = run.clean - ends[0]
        run.extras.update(run.technique.told(total - change, change))
