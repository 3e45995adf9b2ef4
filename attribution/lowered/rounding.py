"""How far two orders of the same sums may take the scores that a call asks about: one table for all fast ways."""

from typing import Any

import torch
from torch import Tensor

from attribution.run import MASK, Run, medians
from attribution.running.precision import tf32

ROUNDINGS = {torch.float16: 32, torch.bfloat16: 8}
"""How many ``eps`` of a class's size two orders of the same sums may be apart; in ResNet-50 it is 26 and 5."""

ROUNDING = 512
"""The same in float32 and float64. On fourteen torchvision families it is at most 112 (VGG16, random weights)."""


def allowed(run: Run[Any], clean: Tensor, changed: Tensor, examples: Tensor | None = None) -> Tensor:
    """(N, K): how far rounding may take each column of the matrix that scores are picked from.

    Args:
        run: Its score is settled.
        clean: (N, K), the model's own, of the inputs as they are.
        changed: (P, K), the model's own, of changed ones; see `sizes`.
        examples: (N,), whose rows these are; ``None``: all of the call, in order.
    """
    target, scale = run.settled[1], run.scale
    if examples is not None:
        target, scale = target[examples], None if scale is None else scale[examples]
    dtype = tf32(clean) or clean.dtype
    unit = ROUNDINGS.get(dtype, ROUNDING) * torch.finfo(dtype).eps
    size = sizes(clean, changed, target)
    return unit * (size if scale is None else torch.maximum(size, scale.to(clean.dtype)))


def sizes(clean: Tensor, changed: Tensor, target: Tensor) -> Tensor:
    """By what each class's logit is rounded, (N, K): its own size, or that of the median class where it is larger.

    A logit near zero may be the sum of large parts, as the other logits show. Classes that no change moves are left out
    of the median, and the classes asked for bound it: a class masked by −1e4 says nothing of the others.

    Args:
        clean: (N, K).
        changed: (pairs, K): several of the first image, one of each further one.
        target: (N, T) asked for.
    """
    several = len(changed) - len(clean) + 1
    largest = torch.cat([changed[:several].abs().amax(dim=0, keepdim=True), changed[several:].abs()])
    own = torch.maximum(clean.abs(), largest)
    still = torch.cat([(changed[:several] == clean[:1]).all(dim=0, keepdim=True), changed[several:] == clean[1:]])
    still &= ~still.all(dim=1, keepdim=True)  # a change that moves nothing tells no masked class from another
    median = medians(own.masked_fill(still, torch.nan))[:, None].nan_to_num(0.0)
    bound = MASK * own.gather(1, target).amax(dim=1, keepdim=True)
    return torch.maximum(own, torch.minimum(median, bound)).nan_to_num(nan=0.0, posinf=0.0)
