"""The convolution that a truncated forward would end with, and need not run: its objective is affine in its input."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Run
from attribution.running.precision import tf32

Objective = Callable[[Tensor, Tensor], Tensor]
"""(activation (B, D, h, w), channels (B,)) → (B,), affine in the activation."""

WITHIN = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 2**-9}
"""How far the affine form may be from the whole forward, as a part of what is added up: rounding, nothing else.

The last is for float32 that a convolution rounds to TF32's eleven digits: two factors, by 2⁻¹¹ each at most, and the
form's own two.
"""


class _Halt(BaseException):
    """Ends a forward before the convolution; a model's own ``except Exception`` must not catch it."""


@dataclass
class LastConvolution:
    """objective(conv(x)) = objective(conv(0)) + ⟨pull, x⟩, where pull is the objective's gradient at any x.

    Of all filters of the convolution the objective of an image reads one, and the same at every step. So pull is
    taken once for each batch of filters, by the convolution itself, and every later forward ends before it. The first
    forward of each batch is a whole one, and the form is used only where it gives the same objective and gradient:
    what a model does around the call of the convolution (other weights, another precision, no graph) shows there. The
    final images go through a whole forward again, and `refuted` says if the form no longer held for them.

    Attributes:
        layer: As the user wrote it.
        module: The convolution.
        objective: Of its output.
    """

    layer: str
    module: nn.Conv2d
    objective: Objective
    _channels: Tensor | None = None
    _pull: Tensor | None = None
    _offset: Tensor | None = None
    refuted: bool = False

    def serves(self, channels: Tensor) -> bool:
        """Whether the form was proved for this very batch of filters."""
        return self._channels is channels

    @contextmanager
    def watched(self) -> Iterator[list[Tensor]]:
        """What goes into the convolution, run by run, in a whole forward inside the block."""
        entries: list[Tensor] = []
        owner, armed = threading.get_ident(), True

        def note(module: nn.Module, args: tuple[Any, ...]) -> None:
            if armed and threading.get_ident() == owner and args and isinstance(args[0], Tensor):
                entries.append(args[0])

        handle = None
        try:
            handle = self.module.register_forward_pre_hook(note)
            yield entries
        finally:
            armed = False  # an interrupt may have hidden the handle
            if handle is not None:
                handle.remove()

    def prove(self, channels: Tensor, entry: Tensor, value: Tensor, gradient: Tensor) -> None:
        """Take the form for a batch of filters, if it gives what a whole forward gave.

        Args:
            channels: (B,).
            entry: The convolution's input (B, C', h', w').
            value: The objective (B,).
            gradient: Of the objective with respect to ``entry``.
        """
        if not len(entry) == len(channels) == len(value) or value.dtype != entry.dtype:
            return
        with torch.enable_grad():
            zero = torch.zeros_like(entry, requires_grad=True)
            offset = self.objective(self.module(zero.clone()), channels)  # a leaf would confuse who counts
            (pull,) = torch.autograd.grad(offset.sum(), zero)
        found = _objective(offset.detach(), pull, entry)
        within = _within(entry) * pull.abs().max()
        if _near(found, value, entry) & ((gradient - pull).abs().max() <= within):
            self._channels, self._pull, self._offset = channels, pull, offset.detach()

    def confirm(self, entry: Tensor, value: Tensor) -> None:
        """Hold the form against the objective (B,) of the final images, by a whole forward; see ``refuted``."""
        if self._pull is not None and self._offset is not None and entry.shape == self._pull.shape:
            found = _objective(self._offset, self._pull, entry.detach())
            self.refuted |= bool(value.isfinite().all() & ~_near(found, value, entry))  # one look

    def entry(self, run: Run[Any], images: Tensor) -> Tensor:
        """The convolution's input (B, C', h', w') for images (B, C, H, W), with graph where gradients are on.

        Raises:
            LayerError: The convolution does not run this time.
        """
        caught: list[Tensor] = []
        owner, halt, armed, handle = threading.get_ident(), _Halt(), True, None

        def stop(module: nn.Module, args: tuple[Any, ...]) -> None:
            if armed and threading.get_ident() == owner:
                caught.append(args[0])
                raise halt

        try:
            handle = self.module.register_forward_pre_hook(stop)
            run.forward(images)
        except _Halt as reached:
            if reached is not halt:
                raise
            reached.__traceback__ = None  # it holds the forward's frames, they hold it
        finally:
            armed = False
            if handle is not None:
                handle.remove()
        if not caught:
            raise layers.never_ran(self.layer)
        return caught[0]

    def value(self, entry: Tensor) -> tuple[Tensor, Tensor] | None:
        """The objective (B,), and its gradient with respect to the convolution's input; ``None`` for another size."""
        if self._pull is None or self._offset is None or entry.shape != self._pull.shape:
            return None
        return _objective(self._offset, self._pull, entry.detach())[0], self._pull


def _objective(offset: Tensor, pull: Tensor, entry: Tensor) -> tuple[Tensor, Tensor]:
    """Offset + ⟨pull, entry⟩ (B,), and the size of what is added up."""
    added = (pull * entry).flatten(1)
    return offset + added.sum(dim=1), offset.abs() + added.abs().sum(dim=1)


def _near(found: tuple[Tensor, Tensor], value: Tensor, entry: Tensor) -> Tensor:
    return ((found[0] - value).abs() <= _within(entry) * found[1]).all()


def _within(entry: Tensor) -> float:
    return WITHIN[tf32(entry, "convolution") or entry.dtype]


def last_convolution(run: Run[Any], layer: str, objective: Objective) -> LastConvolution | None:
    """The layer, if it is a plain ``nn.Conv2d`` that runs once and that nobody watches or alters; else ``None``."""
    name, module = layers.find(run.model, layer)
    if type(module) is not nn.Conv2d or not name.plain:
        return None
    if run.execution.autocast is not None or run.inputs.dtype not in (torch.float32, torch.float64):
        return None
    watched = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    if any(watched) or "forward" in vars(module):
        return None
    ran = next((stop for stop in layers.survey(run.model, run.inputs) if stop.module is module), None)
    if ran is None or ran.calls != 1 or ran.input_shape is None or len(ran.input_shape) != 4:
        return None
    return LastConvolution(layer, module, objective)
