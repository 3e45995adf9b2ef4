"""``CamAttributor``: one forward for all layers and targets, gradients of many targets together."""

from abc import ABC
from collections.abc import Mapping
from typing import ClassVar, TypeVar, final

import torch
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.errors import PluginError
from attribution.inputs.inputs import Inputs
from attribution.technique import Maps
from attribution.techniques.cam.by_channel import CAMByChannel
from attribution.techniques.cam.family import CAM
from attribution.techniques.cam.tokens import Grid
from attribution_hooks.cam import backward, memory
from attribution_hooks.cam.backward import Tail, chunk
from attribution_hooks.cam.closed_form import class_maps, flat
from attribution_hooks.cam.forward import Forward, forward
from attribution_hooks.cam.graphs import replayed

C = TypeVar("C", bound=CAM)


class CamAttributor(Attributor[C], ABC):
    """A technique of the `CAM` family with the graph from the first layer on; no parameter gradient is formed.

    A subclass implements `weights`, where the mean gradient of a channel is all that it needs of the gradient, else
    `combine`. A few targets take one backward each. More are taken through the tail together, as many as fit the memory
    budget. Where the tail is found to be a mean and a linear layer, its weights are the mean gradients of all classes.
    """

    backend: ClassVar[str] = "hooks"

    def weights(self, activation: Tensor, mean_gradient: Tensor) -> Tensor:
        """(N, T, D), by which the channels are multiplied before they are added up.

        Args:
            activation: (N, D, *places), detached.
            mean_gradient: (N, T, D), of each target's score, over the places; may be a view that repeats itself.
        """
        raise NotImplementedError

    def combine(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """(N, T, *places), the maps of some of the targets.

        Args:
            activation: (N, 1, D, *places), detached.
            gradient: (N, T, D, *places), of each target's score.
        """
        raise NotImplementedError

    def terms(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """(N, T, D, *places), which `combine` adds up over D; of techniques whose channels can be kept."""
        raise NotImplementedError

    @property
    def _by_mean(self) -> bool:
        return type(self).weights is not CamAttributor.weights

    def image_bytes(self, model: nn.Module, technique: C, inputs: Inputs) -> int:
        """The forward's graph from the first layer on, or what is widest before it, and one target's gradients."""
        names = technique.layers
        gradients = memory.gradient_bytes(model, inputs, names, kept=1 if self._by_mean else backward.COPIES)
        graph = memory.forward_bytes(model, inputs, names) + gradients
        return max(graph, 2 * layers.peak_bytes(model, inputs)) if graph else 0  # four maps meet where branches do

    @final
    def compute(self, run: Run[C]) -> Maps:
        """(N, T, *places) for each layer.

        Raises:
            PluginError: The subclass implements neither `weights` nor `combine`, or both.
        """
        if self._by_mean is (type(self).combine is not CamAttributor.combine):
            raise PluginError(f"{type(self).__name__} implements weights or combine, one of the two")
        if run.execution.graphs:
            return replayed(run, run.technique, self._plainly)
        return self._plainly(run)

    def _plainly(self, run: Run[C]) -> Maps:
        names = run.technique.layers
        ran = forward(run, names)
        (score, target), outputs = run.settled, ran.outputs
        scores = score.score_of(ran.logits)
        grids = {
            name: run.technique.grid(name, tuple(output.shape), run.model, run.inputs)
            for name, output in outputs.items()
        }
        if not scores.requires_grad:
            raise layers.no_influence(*names)
        with torch.no_grad(), torch.autocast(scores.device.type, enabled=False):
            maps = self._maps(run, ran, scores, target, grids)
        for key, note in run.technique.notes(grids, run.inputs).items():
            run.note(key, note)
        return {name: maps[name] for name in names}

    def _maps(
        self, run: Run[C], ran: Forward, scores: Tensor, target: Tensor, grids: Mapping[str, Grid]
    ) -> dict[str, Tensor]:
        found = {name: grids[name].map(output.detach()) for name, output in ran.outputs.items()}
        maps: dict[str, Tensor] = {}
        many = target.shape[1] > backward.FEW_TARGETS
        apart = isinstance(run.technique, CAMByChannel) and run.technique.by_channel
        if self._by_mean and run.settled[0].logits and many and not ran.edges and not apart:
            for name, output in ran.outputs.items():
                closed = class_maps(run, scores, output, grids[name], target, self.weights)
                if closed is not None:
                    maps[name] = closed
        rest = {name: output for name, output in ran.outputs.items() if name not in maps}
        for name in found:
            run.note(f"engine {name}", "backward" if name in rest else "closed form")
        if not rest:
            return maps
        tail = Tail(run, scores, rest, grids, ran.edges)
        kept = 1 if self._by_mean else backward.COPIES
        size = chunk(run, run.technique.layers, kept=kept) if target.shape[1] > 1 else 1
        if not self._by_mean:
            combine = self.terms if apart else self.combine
            return tail.maps(target, size, {name: found[name].unsqueeze(1) for name in rest}, combine)
        means, product = tail.weights(target, size), products if apart else weighted
        return maps | {name: product(self.weights(found[name], means[name]), found[name]) for name in rest}


def products(weights: Tensor, activation: Tensor) -> Tensor:
    """Channel by channel: (N, T, D) and (N, D, *places) → (N, T, D, *places)."""
    return weights.to(activation.device).reshape(*weights.shape, *[1] * (activation.ndim - 2)) * activation[:, None]


def weighted(weights: Tensor, activation: Tensor) -> Tensor:
    """Σ over channels: (N, T, D) and (N, D, *places) → (N, T, *places)."""
    maps = activation.new_empty((*weights.shape[:2], *activation.shape[2:]))
    torch.bmm(weights.to(activation.device), flat(activation), out=flat(maps))
    return maps  # and no view of what was computed, which would be copied to be nobody else's
