"""Torch's modes as a run needs them, given back on every exit."""

import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from attribution.isolation import function_modes, process_flags
from attribution.isolation.undo import Undo, undoing
from attribution.running import torch_internals
from attribution.running.execution import Execution


def set_modes(undo: Undo, execution: Execution, device: torch.device) -> None:
    """Torch's modes as a run needs them, whatever the caller set: gradients on, no inference mode, autocast as asked.

    All are noted first, but for those of `leave`.
    """
    if torch.is_inference_mode_enabled():
        outside = torch_internals.InferenceMode(False)
        undo.add(lambda: None if torch.is_inference_mode_enabled() else outside.__exit__(None, None, None))
        outside.__enter__()
    torch_internals.set_gradients(True)
    for kind in {device.type, "cpu"} - {"meta"}:  # the host works for every model; one on "meta" is refused soon
        asked = execution.autocast if kind == device.type else None
        if asked is None and not torch.is_autocast_enabled(kind):
            continue
        before = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind), torch.is_autocast_cache_enabled()
        wanted = torch.autocast(kind, dtype=asked, enabled=asked is not None, cache_enabled=False)  # it checks both
        undo.add(partial(_set_autocast, kind, *before))
        _set_autocast(kind, wanted._enabled, wanted.fast_dtype, False)
    if execution.deterministic:
        process_flags.deterministic(undo)


def devices_of(model: nn.Module, *tensors: Tensor) -> list[torch.device]:
    """Of all parameters and buffers, the first parameter's first, and of the tensors given."""
    found = dict.fromkeys(
        held.device
        for module in model.modules()
        for held in (*module._parameters.values(), *module._buffers.values())
        if held is not None
    )
    return [*(found | dict.fromkeys(tensor.device for tensor in tensors))]


def keep_random(undo: Undo, devices: Iterable[torch.device]) -> None:
    """The random number generators are given back, for models that draw also in eval mode."""
    for put, state in _generators(devices):
        undo.add(partial(put, state))


def random_states(devices: Iterable[torch.device]) -> list[Tensor]:
    """Of torch's generators for the host and the devices."""
    return [state for _, state in _generators(devices)]


def note_random(undo: Undo, devices: Iterable[torch.device]) -> Callable[[], None]:
    """Note the generators of torch, Python and numpy; what is returned puts them back, and so does ``undo``."""
    numpy: Any = sys.modules.get("numpy.random")
    noted: list[tuple[Callable[[Any], object], Any]] = [*_generators(devices), (random.setstate, random.getstate())]
    if numpy is not None:
        noted.append((numpy.set_state, numpy.get_state()))

    def restart() -> None:
        for put, state in noted:
            put(state)

    undo.add(restart)
    return restart


@contextmanager
def modes(execution: Execution, device: torch.device) -> Iterator[None]:
    """Both for a block."""
    with undoing() as undo:
        undo.add(partial(leave, torch.is_grad_enabled(), torch_internals.transforms(), function_modes.stack()))
        set_modes(undo, execution, device)
        keep_random(undo, [device])
        yield


@contextmanager
def without_autocast(device: torch.device) -> Iterator[None]:
    """Full precision for a block that is the library's own, not the model's."""
    kind = device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        yield
        return
    with torch.autocast(kind, enabled=False):
        yield


def autocast_as_now(device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """What makes a block under the autocast that is on now, wherever the block is entered."""
    kind = device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return nullcontext
    dtype, cached = torch.get_autocast_dtype(kind), torch.is_autocast_cache_enabled()
    return partial(torch.autocast, kind, dtype=dtype, cache_enabled=cached)


def _set_autocast(kind: str, enabled: bool, dtype: torch.dtype, cached: bool) -> None:
    torch.set_autocast_enabled(kind, enabled)
    torch.set_autocast_dtype(kind, dtype)
    torch.set_autocast_cache_enabled(cached)


def _generators(devices: Iterable[torch.device]) -> list[tuple[Callable[[Tensor], None], Tensor]]:
    """How to put each state back, and the state: the host's, and that of every device that has a generator."""
    found: list[tuple[Callable[[Tensor], None], Tensor]] = [(torch.set_rng_state, torch.get_rng_state())]
    for device in devices:
        module: Any = None if device.type in ("cpu", "meta") else torch.get_device_module(device)
        if device.type == "mps":  # the only one of its kind: its functions take no device
            found.append((module.set_rng_state, module.get_rng_state()))
        elif module is not None:
            found.append((partial(module.set_rng_state, device=device), module.get_rng_state(device)))
    return found


def leave(gradients: bool, transforms: int, modes: Sequence[Any]) -> None:
    """The gradient mode, and what an interrupted block of torch's own left on its stacks or took off them.

    Args:
        gradients: As it was at the beginning.
        transforms: How many of ``torch.func`` were open.
        modes: What `function_modes.stack` said.
    """
    if modes or torch_internals.function_modes():
        function_modes.put_back(modes)
    if torch_internals.transforms() > transforms:
        torch_internals.leave_transforms(transforms)
    torch_internals.set_gradients(gradients)
