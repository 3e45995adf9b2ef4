"""The convolution that a truncated forward would end with, and need not run: its objective is affine in its input."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Run

Objective = Callable[[Tensor, Tensor], Tensor]
"""(activation (B, D, h, w), channels (B,)) → (B,), affine in the activation."""


class _Halt(BaseException):
    """Ends a forward before the convolution; a model's own ``except Exception`` must not catch it."""


@dataclass
class LastConvolution:
    """objective(conv(x)) = objective(conv(0)) + ⟨pull, x⟩, where pull is the objective's gradient at any x.

    Of all filters of the convolution the objective of an image reads one, and the same at every step. So pull is
    taken once for each batch of filters, by the convolution itself, and every later forward ends before it.

    Attributes:
        module: The convolution.
        objective: Of its output.
    """

    module: nn.Conv2d
    objective: Objective
    _channels: Tensor | None = None
    _pull: Tensor | None = None
    _offset: Tensor | None = None

    def entry(self, run: Run, images: Tensor) -> Tensor:
        """The convolution's input (B, C', h', w') for images (B, C, H, W), with graph where gradients are on."""
        caught: list[Tensor] = []
        owner, halt = threading.get_ident(), _Halt()

        def stop(module: nn.Module, args: tuple[Any, ...]) -> None:
            if threading.get_ident() == owner:
                caught.append(args[0])
                raise halt

        handle = self.module.register_forward_pre_hook(stop)
        try:
            run.call(images)
        except _Halt as reached:
            if reached is not halt:
                raise
            reached.__traceback__ = None  # it holds the forward's frames, they hold it
        finally:
            handle.remove()
        return caught[0]

    def value(self, entry: Tensor, channels: Tensor) -> tuple[Tensor, Tensor]:
        """The objective (B,), and its gradient with respect to the convolution's input."""
        if self._pull is None or self._offset is None or self._channels is not channels:
            with torch.enable_grad():
                zero = torch.zeros_like(entry, requires_grad=True)
                offset = self.objective(self.module(zero.clone()), channels)  # a leaf would confuse who counts
                (self._pull,) = torch.autograd.grad(offset.sum(), zero)
            self._offset, self._channels = offset.detach(), channels
        return self._offset + (self._pull * entry.detach()).flatten(1).sum(dim=1), self._pull


def last_convolution(run: Run, layer: str, objective: Objective) -> LastConvolution | None:
    """The layer, if it is a plain ``nn.Conv2d`` that runs once and that nobody watches or alters; else ``None``."""
    name, module = layers.find(run.model, layer)
    if type(module) is not nn.Conv2d or name.call is not None or name.key is not None:
        return None
    if run.execution.autocast is not None or run.inputs.dtype not in (torch.float32, torch.float64):
        return None
    watched = any((module._forward_hooks, module._forward_pre_hooks, module._backward_hooks))
    if watched or "forward" in vars(module):
        return None
    ran = next((stop for stop in layers.survey(run.model, run.inputs) if stop.module is module), None)
    if ran is None or ran.calls != 1 or ran.input_shape is None or len(ran.input_shape) != 4:
        return None
    return LastConvolution(module, objective)
