"""Tails that are a mean and a linear layer, whose weights are the gradients: found and verified, never assumed."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attribution.techniques.tokens import Grid

ROUNDING = 32
"""How many units in the last place of the largest value a true closed form may be off."""


def class_weights(model: nn.Module, logits: Tensor, output: Tensor, grid: Grid) -> Tensor | None:
    """W (K, D) with ∂logits[n, c] / ∂A[n, k, i, j] = W[c, k] / (h·w) for all n, c, k, i, j; ``None`` if there is none.

    So it is where A is averaged over the grid and goes through one linear layer (pooling, flatten, dropout in eval
    mode, linear). Every linear layer of the right size is tried. Any hook of the user's rules the form out.

    Args:
        model: Whose forward gave the logits.
        logits: (N, K), with graph.
        output: The layer's, from which the graph starts.
        grid: Where the output's values lie.
    """
    activation = grid.map(output.detach())
    if logits.dtype != output.dtype or output.dtype not in (torch.float32, torch.float64) or _hooked(model):
        return None
    for weight, bias in _linear(model, logits.shape[1], activation.shape[1]):
        if weight.dtype == output.dtype and verified(weight, bias, logits, output, grid):
            return weight
    return None


def verified(weight: Tensor, bias: Tensor | None, logits: Tensor, output: Tensor, grid: Grid) -> bool:
    """Whether the closed form holds, on this very forward: its value for every class, its gradient for a mixture.

    The value is compared with the logits. The gradient of Σ v[n, c] · logits[n, c], v seeded normal, is compared with
    autograd's at every position of every image. Whatever lies in the way (a ReLU, a scale, a second use of the layer,
    a backward hook) changes one or the other.
    """
    activation = grid.map(output.detach())
    if not _close(F.linear(activation.mean((2, 3)), weight, bias), logits.detach()):
        return False
    source = torch.Generator(logits.device).manual_seed(0)
    mixture = torch.randn(logits.shape, generator=source, dtype=logits.dtype, device=logits.device)
    (gradient,) = torch.autograd.grad(logits, output, mixture, retain_graph=True, allow_unused=True)
    if gradient is None:
        return False
    expected = (mixture @ weight) / activation[0, 0].numel()
    return _close(grid.map(gradient), expected[..., None, None].expand_as(activation))


def _linear(model: nn.Module, classes: int, channels: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Weights (K, D) and biases of the linear layers and 1×1 convolutions of this size."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            weight = module.weight
            if weight.shape[:2] == (classes, channels) and weight.numel() == classes * channels:
                yield weight.detach().flatten(1), module.bias


def _hooked(model: nn.Module) -> bool:
    """Whether anybody hooked into the model: a hook may do to other gradients what it did not do to the mixture's."""
    return any(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
        for module in model.modules()
    )


def _close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() <= ROUNDING * torch.finfo(b.dtype).eps * b.abs().max())
