"""Batch norms folded into the convolutions before them, those of a whole model at once.

Folding changes rounding only: w' = w · γ / √(σ² + ε), b' = (b − μ) · γ / √(σ² + ε) + β.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from attribution.lowered.norms import is_batch_norm

Fold = tuple[Tensor, Tensor]
"""By what a convolution's weights are multiplied, and its bias afterwards; per output channel."""


def norm_after(node: fx.Node, modules: Mapping[str, nn.Module]) -> tuple[fx.Node, Any] | None:
    """The batch norm that alone reads a convolution and can be folded into it, with its node."""
    module = modules[str(node.target)] if node.op == "call_module" else None
    users = list(node.users)
    if not isinstance(module, nn.Conv2d) or len(users) != 1 or users[0].op != "call_module":
        return None
    norm = modules[str(users[0].target)]
    if not is_batch_norm(norm) or module.weight.dtype not in (torch.float32, torch.float64):
        return None
    return users[0], norm


def folds(graph: fx.Graph, modules: Mapping[str, nn.Module]) -> dict[fx.Node, Fold]:
    """Of each convolution that a batch norm follows; a handful of operations for all that lie on one device."""
    alike: dict[object, list[tuple[fx.Node, Any, Any]]] = {}
    for node in graph.nodes:
        if (found := norm_after(node, modules)) is not None:
            conv, norm = modules[str(node.target)], found[1]
            weight: Any = conv.weight
            alike.setdefault((weight.device, weight.dtype, norm.eps), []).append((node, conv, norm))
    return {node: fold for part in alike.values() for node, fold in _of(part).items()}


def _of(part: list[tuple[fx.Node, Any, Any]]) -> dict[fx.Node, Fold]:
    def joined(of: Callable[[Any, Any], Tensor | None], missing: float) -> Tensor:
        found = [(of(conv, norm), norm.running_var) for _, conv, norm in part]
        given = [torch.full_like(beside, missing) if value is None else value.detach() for value, beside in found]
        return torch.cat(given).to(torch.float64)

    weight = part[0][1].weight
    scale = (joined(lambda _, norm: norm.running_var, 1.0) + part[0][2].eps).rsqrt()
    scale = scale * joined(lambda _, norm: norm.weight, 1.0)
    shift = joined(lambda conv, _: conv.bias, 0.0) - joined(lambda _, norm: norm.running_mean, 0.0)
    shift = shift * scale + joined(lambda _, norm: norm.bias, 0.0)
    channels = [len(norm.running_var) for _, _, norm in part]
    scales, shifts = (whole.to(weight.dtype).split(channels) for whole in (scale, shift))
    return {node: fold for (node, _, _), fold in zip(part, zip(scales, shifts, strict=True), strict=True)}
