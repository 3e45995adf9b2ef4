"""Flags of torch that belong to the process: the first run that needs one sets it, the last one gives it back."""

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

import torch
from torch import nn

from attribution.isolation.undo import Undo

T = TypeVar("T")


class ProcessFlag(Generic[T]):
    """One flag, as runs of several threads need it at once.

    Args:
        read: What it is now.
        write: Set it.
        needed: What runs need.
    """

    def __init__(self, read: Callable[[], T], write: Callable[[T], object], needed: T) -> None:
        self._read, self._write, self._needed = read, write, needed
        self._lock = threading.RLock()
        self._before: T = needed
        self._runs: dict[object, int] = {}  # each run's thread

    def enter(self, undo: Undo) -> None:
        """Set the flag until ``undo`` runs."""
        run = object()
        undo.add(partial(self._leave, run))
        with self._lock:
            if not self._runs:
                self._before = self._read()
            self._runs[run] = threading.get_ident()
            self._write(self._needed)

    def _leave(self, run: object) -> None:
        with self._lock:
            if [*self._runs] == [run]:
                self._write(self._before)
            self._runs.pop(run, None)

    def renew(self) -> None:
        """In the child of a fork: the other threads are gone, and so are their runs."""
        self._lock = threading.RLock()
        for run, thread in [*self._runs.items()]:
            if thread != threading.get_ident():
                self._leave(run)


def _deterministic_now() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _set_deterministic(flags: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(flags[0], warn_only=flags[1])


# Torch's own block ``cudnn.flags`` reads ``allow_tf32``, which raises where the user set ``fp32_precision``.
def _set_cudnn(enabled: bool) -> None:
    torch.backends.cudnn.enabled = enabled


def _set_benchmark(benchmark: bool) -> None:
    torch.backends.cudnn.benchmark = benchmark


_DETERMINISTIC = ProcessFlag(_deterministic_now, _set_deterministic, (True, False))
_CUDNN = ProcessFlag(lambda: torch.backends.cudnn.enabled, _set_cudnn, needed=False)
_BENCHMARK = ProcessFlag(lambda: torch.backends.cudnn.benchmark, _set_benchmark, needed=False)
if hasattr(os, "register_at_fork"):
    for _flag in (_DETERMINISTIC, _CUDNN, _BENCHMARK):
        os.register_at_fork(after_in_child=_flag.renew)


def deterministic(undo: Undo) -> None:
    """Until ``undo`` runs torch uses deterministic kernels, and refuses what has none."""
    _DETERMINISTIC.enter(undo)


def differentiable(undo: Undo, model: nn.Module, device: torch.device) -> None:
    """Until ``undo`` runs a model with recurrent layers does without cuDNN, whose own have no gradient in eval mode."""
    if has_cudnn(device) and any(isinstance(module, nn.RNNBase) for module in model.modules()):
        _CUDNN.enter(undo)


def untuned(undo: Undo, device: torch.device) -> None:
    """Until ``undo`` runs cuDNN tries no kernels out, for work in which hardly a shape comes twice."""
    if has_cudnn(device):
        _BENCHMARK.enter(undo)


def has_cudnn(device: torch.device) -> bool:
    """Whether cuDNN computes on a device."""
    return device.type == "cuda"
