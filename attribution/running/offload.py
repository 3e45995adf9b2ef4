"""``Offload``: maps on their way from a device to the host, while the device goes on computing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

STAGE = 2**25
"""Bytes of one staging buffer; a larger map goes in pieces."""


class Lane(Protocol):
    """How bytes get from a device into a staging buffer; `AcceleratorLane`, or a test's stand-in."""

    def stage(self, size: int) -> Tensor:
        """A uint8 buffer on the host into which the device can write by itself."""

    def copy(self, target: Tensor, source: Tensor) -> Callable[[], None]:
        """Begin a copy into a part of such a buffer; what is returned waits for its end."""


NEVER_BESIDE = ("cpu", "meta", "mps")
"""Types of devices that do not copy while they compute; Apple's share the host's memory."""


def copies_beside(device: torch.device) -> bool:
    """Whether a device copies from and to page-locked memory while it computes."""
    return device.type not in NEVER_BESIDE


class AcceleratorLane:
    """Page-locked buffers, and on each device a stream beside the one that computes."""

    def __init__(self) -> None:
        self._streams: dict[torch.device, Any] = {}

    def stage(self, size: int) -> Tensor:
        """A page-locked buffer: only into such memory does a copy run beside the host."""
        return torch.empty(size, dtype=torch.uint8, pin_memory=True, device="cpu")

    def copy(self, target: Tensor, source: Tensor) -> Callable[[], None]:
        """After all that was asked of the computing stream so far, and beside what is asked of it next."""
        device = source.device
        module: Any = torch.get_device_module(device)
        if device not in self._streams:  # a copy is put on a stream of the device that it reads
            self._streams[device] = module.Stream(device)
        stream = self._streams[device]
        stream.wait_stream(module.current_stream(device))
        with module.stream(stream):
            target.copy_(source, non_blocking=True)
        source.record_stream(stream)  # its memory is not used anew before the copy ends
        done: Callable[[], None] = stream.record_event().synchronize
        return done


@dataclass
class _Slot:
    """One staging buffer, and what it holds for whom."""

    buffer: Tensor
    wait: Callable[[], None] | None = None
    parts: tuple[Tensor, Tensor] = field(default_factory=lambda: (torch.empty(0), torch.empty(0)))

    def empty(self) -> None:
        """Wait for the device, then hand the bytes on; the buffer may be written again."""
        if self.wait is not None:
            self.wait()
            target, staged = self.parts
            target.copy_(staged)
            self.wait = None


class Offload:
    """Two staging buffers in turn: the device fills one while the host empties the other.

    Args:
        lane: How to copy.
        stage: Bytes of each buffer.
    """

    def __init__(self, lane: Lane, *, stage: int = STAGE) -> None:
        self._lane, self._stage = lane, stage
        self._slots: list[_Slot] = []
        self._turn = 0

    def take(self, tensor: Tensor) -> Tensor:
        """Begin to copy a tensor. The host tensor that is returned holds its values after `finish`, not before."""
        host = torch.empty_like(tensor, device="cpu")
        if not host.numel():
            return host
        if host.stride() != tensor.stride():
            tensor = tensor.contiguous()
            host = torch.empty_like(tensor, device="cpu")
        source, target = (each.as_strided((each.numel(),), (1,)) for each in (tensor, host))
        length = max(1, self._stage // tensor.element_size())
        for start in range(0, len(source), length):
            self._send(source[start : start + length], target[start : start + length])
        return host

    def finish(self) -> None:
        """Wait until all that was taken has arrived."""
        for index in range(len(self._slots)):
            self._slots[(self._turn + index) % len(self._slots)].empty()

    def _send(self, source: Tensor, target: Tensor) -> None:
        if len(self._slots) < 2:
            self._slots.append(_Slot(self._lane.stage(max(self._stage, source.element_size()))))
            self._turn = len(self._slots) - 1
        slot = self._slots[self._turn]
        slot.empty()
        staged = slot.buffer[: source.nbytes].view(source.dtype)
        slot.parts, slot.wait = (target, staged), self._lane.copy(staged, source)
        self._turn = (self._turn + 1) % 2
