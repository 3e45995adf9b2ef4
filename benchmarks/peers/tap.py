"""A layer's output before and after the next module writes into it, which is why libraries differ there."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Tap:
    """What a hook can come to hold of one layer.

    Attributes:
        before: The layer's output.
        after: The same memory once the forward is over; another value where the next module works in place.
        before_gradient: Of the score with respect to ``before``.
        after_gradient: Likewise to ``after``.
    """

    before: Tensor
    after: Tensor
    before_gradient: Tensor
    after_gradient: Tensor

    @property
    def overwritten(self) -> bool:
        """Whether the next module worked in place."""
        return not torch.equal(self.before, self.after)


@contextmanager
def tapped(module: nn.Module) -> Iterator[list[Tensor]]:
    """During a forward, collect a layer's output ``[before, after]`` with its graph."""
    caught: list[Tensor] = []

    def hook(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        after = output.clone()
        caught[:] = [output, after]
        return after

    handle = module.register_forward_hook(hook)
    try:
        yield caught
    finally:
        handle.remove()


def tap(model: nn.Module, layer: str, inputs: Tensor, target: list[int]) -> Tap:
    """Run a model on (N, C, H, W) and differentiate the sum of one logit per image."""
    with torch.enable_grad(), tapped(model.get_submodule(layer)) as caught:
        logits = model(inputs)
        score = logits[torch.arange(len(target)), target].sum()
        before_gradient, after_gradient = torch.autograd.grad(score, caught)
    before, after = (tensor.detach() for tensor in caught)
    return Tap(before, after, before_gradient, after_gradient)


def grad_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    """Σ over channels of (spatial mean of the gradient) · activation: (N, 1, h, w)."""
    return (gradient.mean(dim=(2, 3), keepdim=True) * activation).sum(dim=1, keepdim=True)
