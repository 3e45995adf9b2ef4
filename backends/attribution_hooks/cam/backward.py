"""Gradients of many targets through the tail of the network at once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from attribution import layers
from attribution.agreement import coarser
from attribution.attributor import Run
from attribution.isolation.notes import notes
from attribution.running.execution import first_line, lost, out_of_memory
from attribution.running.precision import tf32
from attribution.techniques.cam.tokens import Grid
from attribution_hooks.cam import memory
from attribution_hooks.cam.closed_form import drawn
from attribution_hooks.cam.together import all_at_once, has_rules

MOST_TARGETS = 64
"""Targets per backward: more of them are not faster, on VGG16's tail slower."""

FEW_TARGETS = 3
"""So many are taken one by one, as plainly as can be: together, with the proof, they would cost as much."""

COPIES = 4
"""How often the gradients of a chunk of targets are held at once where a technique combines them place by place."""

NOTES = {"backward", "targets per backward"}
"""What a `Tail` notes."""

ROUNDING = 64
"""How many ``eps`` of its size the sum of a batched backward's gradients may be away from the gradient of the sum."""


class Tail:
    """The network from the layers to the logits, as the forward's graph holds it.

    Args:
        run: Is told how the gradients were had. Its layers are not looked at.
        logits: (N, K).
        outputs: Of the layers.
        grids: Where the outputs' values lie.
        edges: Where in the graph those outputs stand that are copies.
    """

    def __init__(
        self,
        run: Run[Any],
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
        self._batched = min(size, target.shape[1]) > FEW_TARGETS
        found = self._in_chunks(target, size if self._batched else 1)
        if target.shape[1] > 1:
            if self._batched and not self._proved(target, found, Grid.mean):
                self._refuted()
                found = self._in_chunks(target, 1)
            self._told(target, size)
        return found

    def proved(self, target: Tensor, size: int) -> Iterator[Mapping[str, Tensor]]:
        """Gradients (t, N, *layer) of each layer, ``size`` targets at a time.

        Each chunk is proved by a plain backward of its own, place by place, since no mean of it is kept.

        Raises:
            LayerError: A target does not depend on a layer.
        """
        self._batched = min(size, target.shape[1]) > FEW_TARGETS
        for columns in target.split(size if self._batched else 1, dim=1):
            found = self._whole(columns)
            if self._batched:
                flat = {name: self._grids[name].map(part).movedim(0, 1).flatten(2) for name, part in found.items()}
                if not self._proved(columns, flat, lambda grid, gradient: grid.map(gradient).flatten(1)):
                    self._refuted()
                    found = self._whole(columns)
            yield found
        self._told(target, size)

    def _refuted(self) -> None:
        self._batched = False
        self._run.note("backward", "one by one, since torch's batched backward gives another gradient")

    def _told(self, target: Tensor, size: int) -> None:
        if target.shape[1] > 1:
            self._run.note("targets per backward", min(size, target.shape[1]) if self._batched else 1)

    def _in_chunks(self, target: Tensor, size: int) -> dict[str, Tensor]:
        parts = [
            {
                name: self._grids[name].mean(part).movedim(0, 1).to(self._logits.device)
                for name, part in self._whole(columns).items()
            }
            for columns in target.split(size, dim=1)
        ]
        return (
            parts[0] if len(parts) == 1 else {name: torch.cat([part[name] for part in parts], 1) for name in parts[0]}
        )

    def _whole(self, columns: Tensor) -> dict[str, Tensor]:
        """(t, N, *layer) by layer.

        Raises:
            LayerError: There is none.
        """
        found = dict(zip(self._outputs, self._gradients(columns), strict=True))
        if missing := [name for name, part in found.items() if part is None]:
            raise layers.no_influence(*missing)
        return {name: part for name, part in found.items() if part is not None}

    def _proved(self, target: Tensor, found: Mapping[str, Tensor], reduced: Callable[[Grid, Tensor], Tensor]) -> bool:
        """Whether Σ v[t] · α[t] is the gradient of Σ v[t] · logit[t], by one backward without batching.

        v is drawn, and divided by the size of α[t], so that a target with small gradients counts as much as one with
        large ones.

        Args:
            target: (N, T).
            found: α (N, T, …), for each layer.
            reduced: From a layer's grid and gradient to what α is of it, (N, …).
        """
        tiny = torch.finfo(self._logits.dtype).tiny
        largest = [torch.linalg.vector_norm(alpha, float("inf"), dim=2) for alpha in found.values()]
        sizes = torch.stack([each / each.amax(1, keepdim=True).clamp(min=tiny) for each in largest]).amax(0)
        mixture = torch.where(sizes > 0, drawn(sizes) / sizes.clamp(min=tiny), 0)
        seed = torch.zeros_like(self._logits).scatter_add_(1, target, mixture.to(self._logits.dtype))
        gradients = self._grad(seed, batched=False)
        held = {alpha.dtype for alpha in found.values()}
        dtype = coarser(self._logits.dtype, self._run.execution.autocast, tf32(self._logits), *held)
        ends = []
        for (name, alpha), gradient, each in zip(found.items(), gradients, largest, strict=True):
            if gradient is None:
                return False
            means = reduced(self._grids[name], gradient).to(alpha.device)
            off = torch.linalg.vector_norm((mixture[:, None].to(alpha) @ alpha)[:, 0] - means, float("inf"), dim=1)
            ends += [off, torch.linalg.vector_norm(mixture * each, dim=1)]
        offs, within = torch.stack(ends).double().cpu().view(-1, 2, len(target)).unbind(1)
        return bool((offs <= ROUNDING * torch.finfo(dtype).eps * within).all())

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
        if len(alone) == 1:
            return [None if found is None else found[None] for found in alone[0]]
        return [None if column[0] is None else torch.stack(column) for column in zip(*alone, strict=True)]

    def _grad(self, seeds: Tensor, *, batched: bool) -> Sequence[Tensor | None]:
        if not batched:
            return self._backward(seeds)
        if self._has_rules(seeds[0]):
            try:
                return all_at_once(self._backward, seeds)
            except RuntimeError as error:  # the other way may have less to say against the graph
                if out_of_memory(error) or lost(error):
                    raise
        return self._backward(seeds, is_grads_batched=True)

    def _backward(self, seed: Tensor, *, is_grads_batched: bool = False) -> Sequence[Tensor | None]:
        """Keeps the graph: it may be needed again, and goes with the logits."""
        return torch.autograd.grad(
            self._logits,
            self._sought,
            seed,
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=is_grads_batched,
        )

    def _has_rules(self, seed: Tensor) -> bool:
        """Found once for a model, the layers and a size of images."""
        run = self._run
        known: dict[object, bool] = notes(run.model).setdefault("rules for many seeds", {})
        key = (tuple(self._outputs), run.inputs.shape[1:], run.inputs.dtype, run.execution.autocast)
        if key not in known:
            known[key] = has_rules(self._backward, seed)
        return known[key]


def chunk(run: Run[Any], names: Sequence[str], *, kept: int = 1) -> int:
    """How many targets fit the memory budget beside the forward, with so many copies of the layers' gradients."""
    images = len(run.inputs)
    held = images * memory.forward_bytes(run.model, run.inputs, names)
    needed = images * memory.gradient_bytes(run.model, run.inputs, names, together=True, kept=kept)
    return max(1, min(MOST_TARGETS, (run.execution.budget - held) // max(needed, 1)))
