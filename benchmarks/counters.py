"""Counts, which no noise can move: forwards, multiply-accumulates, gradients, memory."""

import ctypes
import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.hooks import RemovableHandle

T = TypeVar("T")


@dataclass
class Counts:
    """What one call did.

    Attributes:
        forwards: Calls of the model.
        images: Images through it.
        macs: Multiply-accumulates of convolutions and matrix products, forward and backward.
        modules: Leaf modules that ran.
        parameter_gradients: Parameters whose ``.grad`` was touched.
    """

    forwards: int = 0
    images: int = 0
    macs: int = 0
    modules: int = 0
    parameter_gradients: int = 0


def count(model: nn.Module, call: Callable[[], T], *, warm: Callable[[], object]) -> tuple[T, Counts]:
    """Count what one warm call does to a model, by hooks that a library passes on when it copies the model.

    Args:
        model: The user's model.
        call: What is counted.
        warm: A cheap call that does first what is done once per model.
    """
    counts = Counts()

    def at_root(module: nn.Module, args: tuple[Any, ...]) -> None:
        counts.forwards += 1
        counts.images += len(args[0]) if args and isinstance(args[0], Tensor) else 0

    def at_leaf(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        counts.modules += 1

    handles: list[RemovableHandle] = [model.register_forward_pre_hook(at_root)]
    handles += [m.register_forward_hook(at_leaf) for m in model.modules() if next(m.children(), None) is None]
    try:
        warm()
        counts.forwards = counts.images = counts.modules = 0
        gradients = {parameter: parameter.grad for parameter in model.parameters()}
        with FlopCounterMode(display=False) as flops:
            result = call()
        counts.macs = flops.get_total_flops() // 2
        counts.parameter_gradients = sum(p.grad is not g for p, g in gradients.items())
    finally:
        for handle in handles:
            handle.remove()
    return result, counts


def peak_bytes(call: Callable[[], object], device: str) -> int | None:
    """Bytes that a call needs at its peak beyond what was there before; ``None`` where the system does not tell."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated() - before)
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # else freed memory stays resident and hides what the call needs
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        call()
        return max(0, _status("VmHWM") - before)
    except (OSError, KeyError, AttributeError):
        return None


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)
