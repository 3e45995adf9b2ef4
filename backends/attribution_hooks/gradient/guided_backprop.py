"""Guided backpropagation from one forward, and one backward for each target."""

from typing import Any, ClassVar

from torch import Tensor

from attribution.attributor import Run
from attribution.inputs.inputs import Inputs
from attribution.techniques.gradient.guided_backprop import GuidedBackprop
from attribution_hooks.gradient.rectifiers import apart_from_views, rectify
from attribution_hooks.gradient.sums import GradientSums


class HooksGuidedBackprop(GradientSums[GuidedBackprop]):
    """raw = ∂S/∂x where each rectifier of the graph gives back ReLU(g) · 1[x > 0]."""

    technique_type: ClassVar[type[GuidedBackprop]] = GuidedBackprop
    only_shows: ClassVar[bool] = True

    def output(self, run: Run[GuidedBackprop], shown: Inputs, leaves: Inputs, examples: Tensor) -> Any:
        """With the rule on its graph."""
        with apart_from_views():
            found = run.forward(shown, examples, own=True)
        rectify(run, found, leaves, "guided")
        return found
