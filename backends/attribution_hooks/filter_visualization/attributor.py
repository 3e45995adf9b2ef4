"""Filter visualisation by ``autograd.grad`` on the images; weights get no gradient."""

from contextlib import nullcontext
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.technique import Maps
from attribution.techniques import FilterVisualization
from attribution.techniques.filter_visualization import Crop, Reading, filters_at_once, find_crop
from attribution_hooks.capture import capture
from attribution_hooks.filter_visualization.last_convolution import LastConvolution, last_convolution

PROBES = 64
"""Images that are put together on a device while the part that a neuron sees is looked for."""


class HooksFilterVisualization(Attributor[FilterVisualization]):
    """`FilterVisualization`, several filters per forward, which ends after the layer."""

    technique_type: ClassVar[type[FilterVisualization]] = FilterVisualization
    backend: ClassVar[str] = "hooks"

    def compute(self, run: Run[FilterVisualization]) -> Maps:
        """Images after the last and after the first step."""
        technique = run.technique
        reading = technique.reading(run.model, run.inputs)
        crop = self._crop(run, reading)
        if technique.neuron is not None:
            run.note("crop", "none found" if crop is None else str(crop))

        neuron = crop.neuron if crop else None
        last = None
        if not technique.of_logits(run.model) and not technique.objectives and technique.channel_axis is None:
            last = last_convolution(run, technique.layer, partial(technique.objective, neuron=neuron))

        def gradient(images: Tensor, channels: Tensor) -> tuple[Tensor, Tensor]:
            seen = images if crop is None else images[..., crop.rows, crop.columns]
            seen = seen.detach().requires_grad_(torch.is_grad_enabled())
            objective, g = self._step(run, seen, channels, neuron, last, reading)
            if g is None:
                return objective, images
            if crop is None:
                return objective.detach(), g
            whole = torch.zeros_like(images)
            whole[..., crop.rows, crop.columns] = g
            return objective.detach(), whole

        batch = run.execution.chunk(_bytes(technique, run), len(run.inputs), most=filters_at_once(run.inputs.tensor))
        steps = technique.steps * -(-len(run.inputs) // batch)
        with run.progress(steps, "step") as advance:
            raw, extras = technique.ascend(run.inputs.tensor, gradient, batch_size=batch, advance=advance)
        if last is not None and last.refuted:
            last = None
            with run.progress(steps, "step") as advance:
                raw, extras = technique.ascend(run.inputs.tensor, gradient, batch_size=batch, advance=advance)
        run.extras.update(extras)
        return raw

    def _step(
        self,
        run: Run[FilterVisualization],
        images: Tensor,
        channels: Tensor,
        neuron: tuple[int, ...] | None,
        last: LastConvolution | None,
        reading: Reading,
    ) -> tuple[Tensor, Tensor | None]:
        """The objective (B,), and where gradients are on the one with respect to the images."""
        graph = torch.is_grad_enabled()
        if last is not None and graph and last.serves(channels):
            entry = last.entry(run, images)
            known = last.value(entry)
            if known is not None:
                return known[0], self._pulled(entry, known[1], [images])[0]
        with nullcontext() if last is None else last.watched() as entries:
            activation = self._activation(run, images)
            objective = run.technique.objective(activation, channels, neuron, reading(activation, len(images)))
        if not graph:
            if last is not None and last.serves(channels) and entries:
                last.confirm(entries[0], objective)
            return objective, None
        sought = [images, *(entry for entry in (entries or [])[:1] if entry.requires_grad)]
        g, *pull = self._pulled(objective, torch.ones_like(objective), sought)
        if last is not None and pull and pull[0] is not None:
            last.prove(channels, sought[1].detach(), objective.detach(), pull[0])
        return objective.detach(), g

    def _pulled(self, root: Tensor, pull: Tensor, sought: list[Tensor]) -> tuple[Tensor, ...]:
        """Gradients of ⟨pull, root⟩; that of the images, which come first, must be there."""
        found = torch.autograd.grad(root, sought, pull, allow_unused=True) if root.requires_grad else (None,)
        if found[0] is None:
            raise layers.cut_off(self.technique.layer)
        return found

    def _activation(self, run: Run[FilterVisualization], images: Tensor) -> Tensor:
        """The layer's output, with graph where gradients are on."""
        layer = run.technique.layer
        if run.technique.of_logits(run.model):
            return run.logits(run.forward(images))
        graph = torch.is_grad_enabled()
        once = layers.run_once(run.model, run.inputs, [layer])
        with capture(run.model, [layer], gradients="to the images" if graph else None, stop=once) as caught:
            run.forward(images)
        return caught[layer]

    def _crop(self, run: Run[FilterVisualization], reading: Reading) -> Crop | None:
        """Where a single neuron looks, if that is not everywhere."""
        technique, start = run.technique, run.inputs.tensor[:1]
        if technique.neuron is None:
            return None

        def seen(images: Tensor) -> Tensor:
            activation = self._activation(run, images)
            return reading(activation, len(images)).first(activation)

        neuron = technique.position(tuple(seen(start).shape))
        if start.ndim != 4 or len(neuron) != 2:
            return None
        at_once = 1 if run.inputs.device.type == "cpu" else run.execution.chunk(_bytes(technique, run), PROBES)
        return find_crop(seen, start, neuron, at_once)


def _bytes(technique: FilterVisualization, run: Run[FilterVisualization]) -> int:
    """Of the activations of one filter that live until its gradient is there, and of the widest two gradients."""
    stops = layers.survey(run.model, run.inputs)
    ends = [] if technique.of_logits(run.model) else [layers.find(run.model, technique.layer)[1]]
    last = max((stop.order for stop in stops if stop.module in ends), default=len(stops) + 1)
    leaves = [stop for stop in stops if stop.leaf and stop.order <= last]
    return sum(stop.bytes * stop.calls for stop in leaves) + 2 * max((stop.bytes for stop in leaves), default=0)
