"""Torch's modes as a run needs them, given back on every exit."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from attribution.execution import Execution


class _Deterministic:
    """Torch's flag belongs to the process: the first run that needs it sets it, the last one gives it back."""

    def __init__(self) -> None:
        self._lock, self._runs, self._before = threading.Lock(), 0, (False, False)

    def __enter__(self) -> None:
        with self._lock:
            if not self._runs:
                self._before = (
                    torch.are_deterministic_algorithms_enabled(),
                    torch.is_deterministic_algorithms_warn_only_enabled(),
                )
            self._runs += 1
            torch.use_deterministic_algorithms(True)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._runs -= 1
            if not self._runs:
                torch.use_deterministic_algorithms(self._before[0], warn_only=self._before[1])


_deterministic = _Deterministic()


@contextmanager
def modes(execution: Execution, device: torch.device) -> Iterator[None]:
    """Torch's modes as a run needs them, whatever the caller set: gradients on, autocast as asked.

    They are restored after, and so are the random number generators, for models that draw also in eval mode.
    """
    with ExitStack() as stack:
        stack.callback(torch.set_rng_state, torch.get_rng_state())
        if device.type == "cuda":
            stack.enter_context(torch.random.fork_rng(devices=[device]))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        enabled = execution.autocast is not None
        if enabled or torch.is_autocast_enabled(device.type):
            stack.enter_context(
                torch.autocast(device.type, dtype=execution.autocast, enabled=enabled, cache_enabled=False)
            )
        if execution.deterministic:
            stack.enter_context(_deterministic)
        yield
