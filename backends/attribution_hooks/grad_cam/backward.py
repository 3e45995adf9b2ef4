"""Gradients of many targets through the tail of the network at once."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from attribution import layers
from attribution.agreement import coarser
from attribution.attributor import Run
from attribution.execution import first_line, lost, out_of_memory
from attribution.precision import tf32
from attribution.techniques.tokens import Grid
from attribution_hooks.grad_cam import memory
from attribution_hooks.grad_cam.closed import drawn

MOST_TARGETS = 64
"""Targets per backward: more of them are not faster, on VGG16's tail slower."""

ROUNDING = 64
"""How many ``eps`` of its size the sum of a batched backward's gradients may be away from the gradient of the sum."""


class Tail:
    """The network from the layers to the logits, as the forward's graph holds it.

    Args:
        run: Is told how the gradients were had.
        logits: (N, K).
        outputs: Of the layers.
        grids: Where the outputs' values lie.
        edges: Where in the graph those outputs stand that are copies.
    """

    def __init__(
        self,
        run: Run,
        logits: Tensor,
        outputs: Mapping[str, Tensor],
        grids: Mapping[str, Grid],
        edges: Mapping[str, GradientEdge] = {},
    ) -> None:
        self._run = run
        self._logits = logits
        self._outputs = outputs
        self._sought: list[Any] = [edges.get(name, output) for name, output in outputs.items()]
        self._grids = grids
        self._batched = True

    def weights(self, target: Tensor, size: int) -> dict[str, Tensor]:
        """Mean gradients (N, T, D) of the target logits (N, T) with respect to each layer, ``size`` targets at a time.

        Torch's batched backward is believed only if it gives what one plain backward gives for a mixture of the
        targets: it is wrong, for example, for a batch norm in eval mode before a channels-last convolution.

        Raises:
            LayerError: A target does not depend on a layer.
        """
        found = self._in_chunks(target, size)
        if target.shape[1] > 1:
            if self._batched and size > 1 and not self._proved(target, found):
                self._batched = False
                self._run.note("backward", "one by one, since torch's batched backward gives another gradient")
                found = self._in_chunks(target, size)
            self._run.note("targets per backward", min(size, target.shape[1]) if self._batched else 1)
        return found

    def _in_chunks(self, target: Tensor, size: int) -> dict[str, Tensor]:
        parts: list[list[Tensor]] = []
        for columns in target.split(size, dim=1):
            gradients = self._gradients(columns)
            if missing := [name for name, part in zip(self._outputs, gradients, strict=True) if part is None]:
                raise layers.no_influence(*missing)
            parts.append(
                [
                    self._grids[name].map(part).mean((-2, -1)).movedim(0, 1)
                    for name, part in zip(self._outputs, gradients, strict=True)
                    if part is not None
                ]
            )
        return {name: torch.cat(part, dim=1) for name, *part in zip(self._outputs, *parts, strict=True)}

    def _proved(self, target: Tensor, found: Mapping[str, Tensor]) -> bool:
        """Whether Σ v[t] · α[t] is the mean gradient of Σ v[t] · logit[t], by one backward without batching.

        v is drawn, and divided by the size of α[t], so that a target with small gradients counts as much as one with
        large ones.
        """
        tiny = torch.finfo(self._logits.dtype).tiny
        sizes = torch.stack(
            [alpha.abs().amax(2) / alpha.abs().amax((1, 2))[:, None].clamp(min=tiny) for alpha in found.values()]
        )
        largest = sizes.amax(0)
        mixture = torch.where(largest > 0, drawn(largest) / largest.clamp(min=tiny), 0)
        seed = torch.zeros_like(self._logits).scatter_add_(1, target, mixture.to(self._logits.dtype))
        gradients = self._grad(seed, batched=False)
        held = {alpha.dtype for alpha in found.values()}
        dtype = coarser(self._logits.dtype, self._run.execution.autocast, tf32(self._logits), *held)
        near = []
        for (name, alpha), gradient in zip(found.items(), gradients, strict=True):
            if gradient is None:
                return False
            shares = mixture[..., None] * alpha
            size = shares.abs().amax(2).square().sum(1).sqrt()
            difference = shares.sum(1) - self._grids[name].map(gradient).mean((-2, -1))
            near.append((difference.abs().amax(1) <= ROUNDING * torch.finfo(dtype).eps * size).all())
        return bool(torch.stack(near).all())

    def _gradients(self, columns: Tensor) -> Sequence[Tensor | None]:
        """(t, N, *layer) for t targets, by layer."""
        shape = (columns.shape[1], *self._logits.shape)
        seeds = self._logits.new_zeros(shape).scatter_(2, columns.T[..., None], 1)
        if len(seeds) > 1 and self._batched:
            try:
                return self._grad(seeds, batched=True)
            except RuntimeError as error:
                if out_of_memory(error) or lost(error):
                    raise
                self._batched = False
                self._run.note("backward", f"one by one, since torch cannot batch it: {first_line(error)}")
        alone = [self._grad(seed, batched=False) for seed in seeds]
        return [None if column[0] is None else _stacked(column) for column in zip(*alone, strict=True)]

    def _grad(self, seeds: Tensor, *, batched: bool) -> Sequence[Tensor | None]:
        """Keeps the graph: it may be needed again, and goes with the logits."""
        return torch.autograd.grad(
            self._logits,
            self._sought,
            seeds,
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=batched,
        )


def _stacked(gradients: tuple[Tensor, ...]) -> Tensor:
    return torch.stack(gradients) if len(gradients) > 1 else gradients[0][None]


def chunk(run: Run, names: Sequence[str]) -> int:
    """How many targets fit the memory budget beside the forward."""
    images = len(run.inputs)
    held = images * memory.forward_bytes(run.model, run.inputs, names)
    needed = images * memory.gradient_bytes(run.model, run.inputs, names)
    return max(1, min(MOST_TARGETS, (run.execution.budget - held) // max(needed, 1)))
