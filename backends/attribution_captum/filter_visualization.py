"""Filter visualisation with gradients from Captum's ``NeuronGradient``."""

from typing import ClassVar

from captum.attr import NeuronGradient
from torch import Tensor

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.technique import Maps
from attribution.techniques import FilterVisualization
from attribution_captum.layer import check, connected, modules, typed


class CaptumFilterVisualization(Attributor[FilterVisualization]):
    """`FilterVisualization`: the shared ascent, its gradient from ``NeuronGradient`` with a callable selector."""

    technique_type: ClassVar[type[FilterVisualization]] = FilterVisualization
    backend: ClassVar[str] = "captum"

    def compute(self, run: Run) -> Maps:
        """Images after the last and after the first step. Every gradient costs a full forward."""
        technique = self.technique
        (module,) = modules(run.model, [technique.layer])
        check(run.model, [technique.layer], run.inputs)
        neuron = NeuronGradient(run.call, module)

        def gradient(images: Tensor, channels: Tensor) -> tuple[Tensor, Tensor]:
            seen: list[Tensor] = []

            def select(activation: Tensor) -> Tensor:
                seen.append(technique.objective(activation, channels))
                return seen[0]

            with connected(layers.cut_off(technique.layer)):
                g = neuron.attribute(images.detach().clone().requires_grad_(), neuron_selector=select)
            return seen[0].detach(), g.detach()

        batch = run.execution.chunk(layers.graph_bytes(run.model, run.inputs), len(run.inputs))
        steps = technique.steps * -(-len(run.inputs) // batch)
        with run.progress(steps, "step") as advance, typed():
            raw, extras = technique.ascend(run.inputs, gradient, batch_size=batch, advance=advance)
        run.extras.update(extras)
        return raw
