"""Grad-CAM by captured activations: one forward for all layers and targets."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.inputs.inputs import Inputs
from attribution.technique import Maps
from attribution.techniques import GradCAM
from attribution_hooks.cam import backward, memory
from attribution_hooks.cam.backward import Tail, chunk
from attribution_hooks.cam.closed_form import class_maps
from attribution_hooks.cam.forward import forward
from attribution_hooks.cam.graphs import replayed


class HooksGradCAM(Attributor[GradCAM]):
    """`GradCAM` with the graph from the first requested layer on; no parameter gradient is formed.

    A few targets take one backward each. More are taken through the tail together, as many as fit the memory budget.
    Where the tail is found to be a mean and a linear layer, its weights are the gradients of all classes.
    """

    technique_type: ClassVar[type[GradCAM]] = GradCAM
    backend: ClassVar[str] = "hooks"

    def image_bytes(self, model: nn.Module, technique: GradCAM, inputs: Inputs) -> int:
        """The forward's graph from the first layer on, or what is widest before it, and one target's gradients."""
        names = technique.layers
        graph = memory.forward_bytes(model, inputs, names) + memory.gradient_bytes(model, inputs, names)
        return max(graph, 2 * layers.peak_bytes(model, inputs)) if graph else 0  # four maps meet where branches do

    def compute(self, run: Run[GradCAM]) -> Maps:
        """(N, T, h, w) for each layer."""
        if run.execution.graphs:
            return replayed(run, run.technique, self._plainly)
        return self._plainly(run)

    def _plainly(self, run: Run[GradCAM]) -> Maps:
        names = run.technique.layers
        ran = forward(run, names)
        (score, target), outputs = run.settled, ran.outputs
        logits = score.score_of(ran.logits)
        for name, output in outputs.items():
            layers.per_image(name, output.shape, len(run.inputs))
        grids = {
            name: run.technique.grid(name, tuple(output.shape), run.model, run.inputs)
            for name, output in outputs.items()
        }
        if not logits.requires_grad:
            raise layers.no_influence(*names)
        with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
            found = {name: grids[name].map(output.detach()) for name, output in outputs.items()}
            maps: Maps = {}
            if score.logits and target.shape[1] > backward.FEW_TARGETS and not ran.edges:
                for name in names:
                    closed = class_maps(run, logits, outputs[name], grids[name], target)
                    if closed is not None:
                        maps[name] = closed
            rest = [name for name in names if name not in maps]
            if rest:
                tail = Tail(run, logits, {name: outputs[name] for name in rest}, grids, ran.edges)
                alphas = tail.weights(target, chunk(run, names) if target.shape[1] > 1 else 1)
                maps |= {name: _weighted(alphas[name], found[name]) for name in rest}
        for name in names:
            run.note(f"engine {name}", "backward" if name in rest else "closed form")
            if run.technique.tokens is None and grids[name].form != "channels_first":
                run.note(f"tokens {name}", f"{grids[name]}, inferred")
        return {name: maps[name] for name in names}


def _weighted(weights: Tensor, activation: Tensor) -> Tensor:
    """Σ over channels: (N, T, D) and (N, D, h, w) → (N, T, h, w)."""
    maps = activation.new_empty((*weights.shape[:2], *activation.shape[2:]))
    torch.bmm(weights.to(activation.device), activation.flatten(2), out=maps.flatten(2))
    return maps  # and no view of what was computed, which would be copied to be nobody else's
