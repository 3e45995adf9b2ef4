"""Tails that are a mean and a linear layer, whose weights are the gradients: found and proved in every call."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attribution.precision import tf32
from attribution.techniques.tokens import Grid

ROUNDING = 32
"""How many units in the last place of the largest value a true closed form may be off."""

TF32_ROUNDING = 4
"""The same in units of TF32, which rounds the factors of a product and not their sum."""


def class_maps(model: nn.Module, logits: Tensor, output: Tensor, grid: Grid, target: Tensor) -> Tensor | None:
    """Σ over channels of W[c, k] · A[n, k, i, j] / (h·w), (N, T, h, w), where that is Grad-CAM; else ``None``.

    It is where A is averaged over the grid and goes through one linear layer W (K, D): pooling, flatten, dropout in
    eval mode, linear. Then ∂logits[n, c] / ∂A[n, k, i, j] = W[c, k] / (h·w) everywhere, and Σ over i, j of the map is
    logits[n, c] without its bias. Every linear layer of the right size is tried. Any hook of the user's rules the form
    out.

    Args:
        model: Whose forward gave the logits.
        logits: (N, K), with graph.
        output: The layer's, from which the graph starts.
        grid: Where the output's values lie.
        target: (N, T) classes.
    """
    if logits.dtype != output.dtype or output.dtype not in (torch.float32, torch.float64) or _hooked(model):
        return None
    activation = grid.map(output.detach())
    for module in _linear(model, logits.shape[1], activation.shape[1]):
        weight, bias = module.weight.detach().flatten(1), module.bias
        if weight.dtype != output.dtype:
            continue
        within = _within(logits, module)
        maps = _maps(weight, target, activation)
        if not _close(_values(maps, bias, target), logits.detach().gather(1, target), within) and not _close(
            F.linear(activation.mean((2, 3)), weight, bias), logits.detach(), within
        ):
            continue
        if has_gradient(weight, logits, output, grid, target, within):
            return maps
    return None


def has_gradient(weight: Tensor, logits: Tensor, output: Tensor, grid: Grid, target: Tensor, within: float) -> bool:
    """Whether the gradient is that of the closed form on this very forward: of a mixture of all classes, and of two.

    The gradient of Σ v[n, c] · logits[n, c] is compared with autograd's at every position of every image. v is drawn so
    that each class has about the same share. Whatever changes no value but the gradient (a second use of the layer, a
    backward of its own) changes it. A backward that is not linear (a clipped gradient) may spare the mixture and not a
    class, so the classes asked for with the largest and with the smallest weights are compared as they are.
    """
    mixture = drawn(logits) / weight.abs().amax(dim=1).clamp(min=torch.finfo(weight.dtype).tiny)
    sizes = weight.abs().amax(dim=1)[target]
    ends = [target.gather(1, pick[:, None]) for pick in (sizes.argmax(dim=1), sizes.argmin(dim=1))]
    for seed in (mixture, *(torch.zeros_like(logits).scatter_(1, end, 1.0) for end in ends)):
        (gradient,) = torch.autograd.grad(logits, output, seed, retain_graph=True, allow_unused=True)
        if gradient is None:
            return False
        found = grid.map(gradient)
        if not _close(found, ((seed @ weight) / found[0, 0].numel())[..., None, None].expand_as(found), within):
            return False
    return True


def drawn(like: Tensor) -> Tensor:
    """Weights of a mixture, the same in every call: of either sign, of sizes from 0.5 to 1.5."""
    source = torch.Generator(like.device).manual_seed(0)
    number = torch.rand((2, *like.shape), generator=source, dtype=like.dtype, device=like.device)
    return (number[0] + 0.5) * torch.where(number[1] < 0.5, -1.0, 1.0)


def _maps(weight: Tensor, target: Tensor, activation: Tensor) -> Tensor:
    """(K, D), (N, T) and (N, D, h, w) → (N, T, h, w); one product of matrices where all images share their targets."""
    classes = target[0]
    shared = (target == classes).all()
    in_order = classes.diff().eq(1).all() if len(classes) == len(weight) else torch.zeros_like(shared)
    same, every = torch.stack((shared, in_order)).tolist()  # one copy to the host, however many targets
    rows = (weight if every else weight[classes]).expand(len(target), -1, -1) if same else weight[target]
    found = torch.matmul(rows, activation.flatten(2)).view(*target.shape, *activation.shape[2:])
    return found.div_(activation[0, 0].numel())


def _values(maps: Tensor, bias: Tensor | None, target: Tensor) -> Tensor:
    """The logits (N, T) that the maps add up to."""
    values = maps.sum((2, 3))
    return values if bias is None else values + bias.detach()[target]


def _linear(model: nn.Module, classes: int, channels: int) -> Iterator[nn.Linear | nn.Conv2d]:
    """The linear layers and 1×1 convolutions of this size."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            weight = module.weight
            if weight.shape[:2] == (classes, channels) and weight.numel() == classes * channels:
                yield module


def _hooked(model: nn.Module) -> bool:
    """Whether anybody hooked into the model: a hook may do to other gradients what it did not do to the mixture's."""
    return any(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
        for module in model.modules()
    )


def _within(logits: Tensor, module: nn.Linear | nn.Conv2d) -> float:
    """What rounding may do to a product of this layer, or to our own of the same factors, as a part of the largest."""
    coarse = tf32(logits, "matmul", *(["convolution"] if isinstance(module, nn.Conv2d) else []))
    if coarse is None:
        return ROUNDING * torch.finfo(logits.dtype).eps
    return TF32_ROUNDING * torch.finfo(coarse).eps


def _close(a: Tensor, b: Tensor, within: float) -> bool:
    return bool((a - b).abs().max() <= within * b.abs().max())
