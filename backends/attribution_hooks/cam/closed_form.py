"""Tails that are a mean and a linear layer, whose weights are the gradients: found and proved in every call."""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from operator import itemgetter
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attribution.attributor import Run
from attribution.running.precision import tf32
from attribution.scores.classes import ClassScore
from attribution.scores.score import Score
from attribution.techniques.cam.tokens import Grid

Weights = Callable[[Tensor, Tensor], Tensor]
W = TypeVar("W", bound=Callable[..., Tensor])

_MARK = "gives back the mean gradients"

_HOOKS = itemgetter("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

ROUNDING = 32
"""How many units in the last place of the largest value a true closed form may be off."""

TF32_ROUNDING = 4
"""The same in units of TF32, which rounds the factors of a product and not their sum."""


def given_back(weights: W) -> W:
    """Mark a method `weights` that gives back the mean gradients: a closed form need not make them."""
    vars(weights)[_MARK] = True
    return weights


def class_maps(
    run: Run[Any], logits: Tensor, output: Tensor, grid: Grid, target: Tensor, weights: Weights
) -> Tensor | None:
    """Σ over channels of w[c, k] · A[n, k, p], (N, T, *places), where W / (h·w) is the mean gradient; else ``None``.

    W is where A is averaged over the grid and goes through one linear layer W (K, D): pooling, flatten, dropout in
    eval mode, linear. Then ∂logits[n, c] / ∂A[n, k, i, j] = W[c, k] / (h·w) everywhere, and Σ over i, j of the map is
    logits[n, c] without its bias. Every linear layer of the right size is tried. Any hook of the user's rules the form
    out.

    Args:
        run: Its model gave the logits.
        logits: (N, K), with graph.
        output: The layer's, from which the graph starts.
        grid: Where the output's values lie.
        target: (N, T) classes.
        weights: From A (N, D, *places) and mean gradients (N, T, D) to w (N, T, D).
    """
    modules = [*run.model.modules()]
    if logits.dtype != output.dtype or output.dtype not in (torch.float32, torch.float64) or hooked(modules):
        return None
    activation = grid.map(output.detach())
    logits, target = logits.to(output.device), target.to(output.device)
    places = activation[0, 0].numel()
    for module in linear(modules, logits.shape[1], activation.shape[1]):
        weight = module.weight.detach().flatten(1).to(output.device)
        bias = None if module.bias is None else module.bias.to(output.device)
        if weight.dtype != output.dtype:
            continue
        within = rounding(logits, module)
        rows = _rows(weight, target, run.asked)
        maps = _product(rows, activation / places)  # which add up to the logits
        told = logits.detach()
        same = _close(within, _values(maps, bias, target)[None], told.gather(1, target)[None])
        if not same and not _close(within, F.linear(flat(activation).mean(2), weight, bias)[None], told[None]):
            continue
        if has_gradient(weight, logits, output, grid, target, within):
            marked = getattr(weights, _MARK, False)
            return maps if marked else _product(weights(activation, rows / places), activation)
    return None


def has_gradient(weight: Tensor, logits: Tensor, output: Tensor, grid: Grid, target: Tensor, within: float) -> bool:
    """Whether the gradient is that of the closed form on this very forward: of a mixture of all classes, and of two.

    The gradient of Σ v[n, c] · logits[n, c] is compared with autograd's at every position of every image. v is drawn so
    that each class has about the same share. Whatever changes no value but the gradient (a second use of the layer, a
    backward of its own) changes it. A backward that is not linear (a clipped gradient) may spare the mixture and not a
    class, so the classes asked for with the largest and with the smallest weights are compared as they are.
    """
    largest = torch.maximum(weight.amax(dim=1), -weight.amin(dim=1))  # without a copy of all weights
    shares = largest[target]
    ends = [target.gather(1, pick[:, None]) for pick in (shares.argmax(dim=1), shares.argmin(dim=1))]
    mixture = drawn(logits) / largest.clamp(min=torch.finfo(weight.dtype).tiny)
    seeds = [mixture, *(torch.zeros_like(logits).scatter_(1, end, 1.0) for end in ends)]
    products = [mixture @ weight, *(weight[end[:, 0]] for end in ends)]  # of a single class, its own row
    found = []
    for seed in seeds:
        (gradient,) = torch.autograd.grad(logits, output, seed, retain_graph=True, allow_unused=True)
        if gradient is None:
            return False
        found.append(flat(grid.map(gradient)))
    gradients = torch.stack(found)
    expected = (torch.stack(products) / gradients.shape[-1])[..., None]
    return _close(within, gradients, expected)


def drawn(like: Tensor) -> Tensor:
    """Weights of a mixture, the same in every call: of either sign, of sizes from 0.5 to 1.5."""
    return _drawn(tuple(like.shape), like.dtype, like.device)


@lru_cache(maxsize=8)
def _drawn(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    source = torch.Generator("cpu").manual_seed(0)
    number = torch.rand((2, *shape), generator=source, dtype=dtype, device="cpu")
    return ((number[0] + 0.5) * torch.where(number[1] < 0.5, -1.0, 1.0)).to(device)


def _rows(weight: Tensor, target: Tensor, score: Score) -> Tensor:
    """(K, D) and (N, T) → (N, T, D), one row for all images where they share their targets.

    What was asked for is known on the host, so that no target need be looked at.
    """
    asked = score.target if isinstance(score, ClassScore) else None
    if isinstance(asked, Tensor):
        same = bool((asked == asked[0]).all())
        every = asked.shape[1] == len(weight) and bool(asked[0].diff().eq(1).all())
    else:
        same = every = asked == "all"
    if not same:
        return weight[target]
    return (weight if every else weight[target[0]]).expand(len(target), -1, -1)


def _product(weights: Tensor, activation: Tensor) -> Tensor:
    """(N, T, D) and (N, D, *places) → (N, T, *places)."""
    return torch.matmul(weights, flat(activation)).view(*weights.shape[:2], *activation.shape[2:])


def flat(tensor: Tensor) -> Tensor:
    """(N, D, *places) → (N, D, places), also of no axis of places."""
    return tensor.flatten(2) if tensor.ndim > 2 else tensor[..., None]


def _values(maps: Tensor, bias: Tensor | None, target: Tensor) -> Tensor:
    """The logits (N, T) that the maps add up to."""
    values = flat(maps).sum(2)
    return values if bias is None else values + bias.detach()[target]


def linear(modules: Iterable[nn.Module], classes: int, channels: int) -> Iterator[nn.Linear | nn.Conv2d]:
    """The linear layers and 1×1 convolutions of this size."""
    for module in modules:
        if reads(module, channels) and len(module.weight) == classes:
            yield module


def reads(module: nn.Module, channels: int) -> TypeGuard[nn.Linear | nn.Conv2d]:
    """Whether it is a linear layer or a 1×1 convolution of so many channels."""
    if not isinstance(module, (nn.Linear, nn.Conv2d)):  # a union takes several times as long
        return False
    weight = module.weight
    return weight.shape[1] == channels and weight.numel() == len(weight) * channels


def hooked(modules: Iterable[nn.Module]) -> bool:
    """Whether anybody hooked into one of these: a hook may do to other gradients what it did not to the mixture's."""
    return any(map(any, map(_HOOKS, map(vars, modules))))


def rounding(logits: Tensor, module: nn.Linear | nn.Conv2d) -> float:
    """What rounding may do to a product of this layer, or to our own of the same factors, as a part of the largest."""
    coarse = tf32(logits, "matmul", *(["convolution"] if isinstance(module, nn.Conv2d) else []))
    if coarse is None:
        return ROUNDING * torch.finfo(logits.dtype).eps
    return TF32_ROUNDING * torch.finfo(coarse).eps


def _close(within: float, found: Tensor, expected: Tensor) -> bool:
    """Whether both are the same, in each row within a part of the row's largest; NaN is never near."""
    offs, sizes = (each.abs().flatten(1).amax(dim=1) for each in (found - expected, expected))
    return bool((offs <= within * sizes).all())
