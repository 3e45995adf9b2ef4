"""Filter visualisation with gradients from Captum's ``NeuronGradient``."""

from typing import ClassVar

import torch
from captum.attr import NeuronGradient
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.technique import Maps
from attribution.techniques import FilterVisualization
from attribution.techniques.filter_visualization import filters_at_once
from attribution_captum.layer import Truncated, connected, item, places, typed


class Logits(nn.Module):
    """The model as the layer whose output is its logits."""

    def __init__(self, run: Run[FilterVisualization]) -> None:
        super().__init__()
        self._run = run

    def forward(self, images: Tensor) -> Tensor:
        """(B, K)."""
        return self._run.logits(self._run.forward(images))


class CaptumFilterVisualization(Attributor[FilterVisualization]):
    """`FilterVisualization`: the shared ascent, its gradient from ``NeuronGradient`` with a callable selector."""

    technique_type: ClassVar[type[FilterVisualization]] = FilterVisualization
    backend: ClassVar[str] = "captum"

    def compute(self, run: Run[FilterVisualization]) -> Maps:
        """Images after the last and after the first step. Every gradient is a forward that ends after the layer."""
        technique = run.technique
        reading = technique.reading(run.model, run.inputs)
        name = None
        if technique.of_logits(run.model):
            logits = Logits(run)
            neuron = NeuronGradient(lambda images: logits(images.clone()), logits)
        else:
            ((name, module),) = places(run.model, [technique.layer], run.inputs)
            neuron = NeuronGradient(Truncated(run, [module]), module)

        def gradient(images: Tensor, channels: Tensor) -> tuple[Tensor, Tensor]:
            seen: list[Tensor] = []

            def select(given: Tensor | tuple[Tensor, ...]) -> Tensor:
                activation = item(name, given)
                seen.append(technique.objective(activation, channels, axes=reading(activation, len(images))))
                return seen[0]

            with torch.enable_grad(), connected(layers.cut_off(technique.layer)):
                g = neuron.attribute(
                    images.detach().clone().requires_grad_(),
                    neuron_selector=select,
                    attribute_to_neuron_input=name is not None and name.entry,
                )
            return seen[0].detach(), g.detach()

        size = layers.graph_bytes(run.model, run.inputs) + layers.peak_bytes(run.model, run.inputs)
        batch = run.execution.chunk(size, len(run.inputs), most=filters_at_once(run.inputs.tensor))
        steps = technique.steps * -(-len(run.inputs) // batch)
        with run.progress(steps, "step") as advance, typed():
            raw, extras = technique.ascend(run.inputs.tensor, gradient, batch_size=batch, advance=advance)
        run.extras.update(extras)
        return raw
