"""Filter visualisation by ``autograd.grad`` on the images; weights get no gradient."""

from typing import ClassVar

import torch
from torch import Tensor

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.technique import Maps
from attribution.techniques import FilterVisualization
from attribution_hooks.capture import capture


class HooksFilterVisualization(Attributor[FilterVisualization]):
    """`FilterVisualization`, several filters per forward."""

    technique_type: ClassVar[type[FilterVisualization]] = FilterVisualization
    backend: ClassVar[str] = "hooks"

    def compute(self, run: Run) -> Maps:
        """Images after the last and after the first step."""
        technique = self.technique
        once = layers.run_once(run.model, run.inputs, [technique.layer])

        def gradient(images: Tensor, channels: Tensor) -> tuple[Tensor, Tensor]:
            images = images.detach().requires_grad_()
            with capture(run.model, [technique.layer], leaf=True, stop=once) as caught:
                run.call(images)
            objective = technique.objective(caught[technique.layer], channels)
            (g,) = torch.autograd.grad(objective.sum(), images, allow_unused=True)
            if g is None:
                raise layers.cut_off(technique.layer)
            return objective.detach(), g

        size = layers.graph_bytes(run.model, run.inputs)
        batch = run.execution.chunk(size, len(run.inputs))
        steps = technique.steps * -(-len(run.inputs) // batch)
        with run.progress(steps, "step") as advance:
            raw, extras = technique.ascend(run.inputs, gradient, batch_size=batch, advance=advance)
        run.extras.update(extras)
        return raw
