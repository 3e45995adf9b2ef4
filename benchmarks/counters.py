"""Counts, which no noise can move: forwards, multiply-accumulates, gradients, memory."""

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

from torch import Tensor, nn

from attribution.metrics.cost import Macs
from benchmarks.devices import module, on_host

T = TypeVar("T")


@dataclass
class Counts:
    """What one call did.

    Attributes:
        forwards: Calls of the model. What an incremental engine runs beside them is seen in ``macs`` alone.
        images: Images through it.
        macs: Multiply-accumulates of convolutions and matrix products, forward and backward.
        modules: Leaf modules that were called.
        parameter_gradients: Parameters whose ``.grad`` was touched.
    """

    forwards: int = 0
    images: int = 0
    macs: int = 0
    modules: int = 0
    parameter_gradients: int = 0


@contextmanager
def _calls(model: nn.Module, counts: Counts) -> Iterator[None]:
    """Count module calls where all of them pass: an occlusion engine goes dense where a module has hooks."""
    call: Any = vars(nn.Module)["__call__"]
    depth = 0

    def counted(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        nonlocal depth
        if depth == 0 and type(module) is type(model) and args and issubclass(type(args[0]), Tensor):  # maybe of a copy
            counts.forwards += 1
            counts.images += len(args[0])
        counts.modules += next(module.children(), None) is None
        depth += 1
        try:
            return call(module, *args, **kwargs)
        finally:
            depth -= 1

    with patch.object(nn.Module, "__call__", counted):
        yield


def count(model: nn.Module, call: Callable[[], T], *, warm: Callable[[], object]) -> tuple[T, Counts]:
    """Count what one warm call does to a model, without a hook on it.

    Args:
        model: The user's model.
        call: What is counted.
        warm: A cheap call that does first what is done once per model.
    """
    counts = Counts()
    warm()
    gradients = {parameter: parameter.grad for parameter in model.parameters()}
    with _calls(model, counts), Macs() as macs:
        result = call()
    counts.macs = macs.total
    counts.parameter_gradients = sum(p.grad is not g for p, g in gradients.items())
    return result, counts


def peak_bytes(call: Callable[[], object], device: str) -> int | None:
    """Bytes that a call needs at its peak beyond what was there before; ``None`` where the system does not tell."""
    gc.collect()
    if not on_host(device):
        memory = module(device)
        memory.synchronize(device)
        memory.reset_peak_memory_stats(device)
        before = memory.memory_allocated(device)
        call()
        memory.synchronize(device)
        return int(memory.max_memory_allocated(device) - before)
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
