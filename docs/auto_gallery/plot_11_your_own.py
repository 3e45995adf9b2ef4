"""
An attributor of your own
=========================

A technique and who computes it, in thirty lines: what a user asks of it, what is checked before, isolation, figures and
files come from the core. ``attribution new-plugin NAME`` writes this as a package with tests.
"""

# %%
# The map of this technique is the score's gradient times how far the pixel is from the photo's mean colour.

from dataclasses import dataclass
from typing import ClassVar

import torch

from attribution import Attributor, Inputs, Run, Technique, explain, register, zoo
from attribution.technique import Kind, Maps


@dataclass(frozen=True, kw_only=True)
class ContrastGradient(Technique):
    """map[i, j] = Σ over channels of ∂score/∂x · (x − mean of x); (N, T, H, W), unit of the score."""

    name: ClassVar[str] = "contrast_gradient"
    title: ClassVar[str] = "Gradient times contrast"
    kind: ClassVar[Kind] = "heatmap"
    needs_target: ClassVar[bool] = True

    @property
    def signed(self) -> bool:
        """Negative values speak against the class."""
        return True

    def finish(self, raw: Maps, inputs: Inputs) -> Maps:
        """The raw map itself."""
        return raw


@register
class MyContrastGradient(Attributor[ContrastGradient]):
    """By one backward pass for each target."""

    technique_type: ClassVar[type[ContrastGradient]] = ContrastGradient
    backend: ClassVar[str] = "mine"

    def compute(self, run: Run[ContrastGradient]) -> Maps:
        """(N, T, H, W) under ``"input"``."""
        x = run.inputs.tensor.requires_grad_()
        contrast = (x - x.mean(dim=(2, 3), keepdim=True)).detach()
        scores = run.scores(run.forward(x))
        maps = []
        for column in scores.unbind(1):
            (gradient,) = torch.autograd.grad(column.sum(), x, retain_graph=True)
            maps.append((gradient * contrast).sum(dim=1))
        return {"input": torch.stack(maps, dim=1)}


# %%

loaded = zoo.load("bundled:squeezenet1_1")
inputs = loaded.inputs(zoo.sample_photo("coffee"))
answer = explain(loaded.model, inputs, ContrastGradient(), backend="mine", target=loaded.index("espresso"))
figure = answer.figure(loaded.picture(inputs), loaded.labels, model=loaded.title)

# %%
# The conformance kit tries it: batches, several targets, other score forms, models that must stay as they are. A sample
# of its checks:

from attribution.testing import run_checks

outcomes = [outcome for _, outcome in zip(range(12), run_checks(MyContrastGradient), strict=False)]
for outcome in outcomes:
    print("ok  " if outcome.good else "FAIL", outcome.name)
