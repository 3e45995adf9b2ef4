"""The thirteen fields of state that a run must leave alone, and what is in them now."""

import os
import random
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attribution.running import precision

Places = dict[str, Any]
"""Where in a field → what was there; tensors are copies, objects are kept alive so that no id is used twice."""


@dataclass(frozen=True, eq=False)
class _Object:
    """Compared by identity, whatever its own ``==`` says."""

    value: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Object) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)

    def __repr__(self) -> str:
        value = self.value
        return repr(value) if isinstance(value, int | float | str | None) else f"{type(value).__name__} {id(value):#x}"


def _modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        yield name or "the model", module


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version


def _copy(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().clone()


def _hooks(model: nn.Module, inputs: list[Tensor]) -> Places:
    owners: list[tuple[str, dict[str, Any]]] = [(name, vars(module)) for name, module in _modules(model)]
    owners.append(("every module", vars(nn.modules.module)))
    found = {
        f"{name}.{key}": [(number, _Object(hook)) for number, hook in value.items()]
        for name, attributes in owners
        for key, value in attributes.items()
        if "hooks" in key and isinstance(value, dict)
    }
    for name, tensor in [*_tensors(model), *((f"inputs {index}", x) for index, x in enumerate(inputs))]:
        for key in ("_backward_hooks", "_post_accumulate_grad_hooks"):
            hooks: dict[int, object] = getattr(tensor, key, None) or {}
            found[f"{name}.{key}"] = [(number, _Object(hook)) for number, hook in hooks.items()]
    return found


def _training(model: nn.Module, inputs: list[Tensor]) -> Places:
    modes = {True: "train", False: "eval", None: "none"}  # frozen TorchScript has none
    return {name: modes[getattr(module, "training", None)] for name, module in _modules(model)}


def _parameters(model: nn.Module, inputs: list[Tensor]) -> Places:
    return {
        f"{name}.{key}": (_Object(p), p.data_ptr(), f"version {_version(p)}", key in vars(module))
        for name, module in _modules(model)
        for key, p in module._parameters.items()
        if p is not None
    }


def _values(model: nn.Module, inputs: list[Tensor]) -> Places:
    return {name: _copy(parameter) for name, parameter in model.named_parameters()}


def _buffers(model: nn.Module, inputs: list[Tensor]) -> Places:
    return {name: (_Object(buffer), buffer.data_ptr(), _copy(buffer)) for name, buffer in model.named_buffers()}


def _requires_grad(model: nn.Module, inputs: list[Tensor]) -> Places:
    return {name: tensor.requires_grad for name, tensor in _tensors(model)}


def _grad(model: nn.Module, inputs: list[Tensor]) -> Places:
    return {name: (_Object(p.grad), _copy(p.grad)) for name, p in model.named_parameters()}


def _inplace(model: nn.Module, inputs: list[Tensor]) -> Places:
    return {name: vars(module)["inplace"] for name, module in _modules(model) if "inplace" in vars(module)}


def _attributes(model: nn.Module, inputs: list[Tensor]) -> Places:
    elsewhere = {"training", "inplace", "_parameters", "_buffers"}
    return {
        f"{name}.{key}": _content(value)
        for name, module in _modules(model)
        for key, value in vars(module).items()
        if key not in elsewhere and "hooks" not in key
    }


def _content(value: object) -> object:
    """The object itself, one level of a container, and the values of a tensor."""
    if isinstance(value, Tensor):
        return _Object(value), _copy(value)
    if isinstance(value, dict):
        return [(key, _Object(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return [_Object(item) for item in value]
    if isinstance(value, set):
        return set(value)
    return _Object(value) if not isinstance(value, bool | int | float | str) else value


def _inputs(model: nn.Module, inputs: list[Tensor]) -> Places:
    found: Places = {}
    for index, x in enumerate(inputs):
        grad = x.grad if x.is_leaf else None
        found |= {
            f"values {index}": _copy(x),
            f"form {index}": (x.data_ptr(), tuple(x.shape), x.stride(), f"version {_version(x)}"),
            f"requires_grad {index}": (x.requires_grad, x.is_leaf),
            f"grad {index}": (_Object(grad), _copy(grad)),
        }
    return found


def _random(model: nn.Module, inputs: list[Tensor]) -> Places:
    name, words, *rest = np.random.get_state()  # noqa: NPY002  # the global generator is what is watched
    version, numbers, gauss = random.getstate()
    kind = _accelerator()
    module: Any = None if kind is None else torch.get_device_module(kind)
    known = hasattr(module, "get_rng_state_all") and module.is_initialized()
    return {
        "torch": torch.get_rng_state(),
        "numpy": (str(name), torch.from_numpy(np.asarray(words).astype(np.int64)), *rest),
        "python": (version, torch.tensor(numbers), gauss),
        **{f"{kind} {index}": state for index, state in enumerate(module.get_rng_state_all() if known else [])},
    }


def _accelerator() -> str | None:
    """The kind of device beside the host that this torch was built for."""
    found = torch.accelerator.current_accelerator()
    return None if found is None else found.type


def _modes(model: nn.Module, inputs: list[Tensor]) -> Places:
    cudnn = torch.backends.cudnn
    found: Places = {
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "anomaly mode": torch.is_anomaly_enabled(),
        "default dtype": str(torch.get_default_dtype()),
        "default device": str(torch.get_default_device()),
        "autocast cache": torch.is_autocast_cache_enabled(),
        "deterministic algorithms": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        "cudnn": (cudnn.enabled, cudnn.benchmark, cudnn.deterministic),
        "float32 precision": tuple(flag().fp32_precision for flag in precision.FLAGS.values()),
        "threads of torch": torch.get_num_threads(),
    }
    for device in dict.fromkeys(("cpu", "cuda", _accelerator() or "cpu")):
        found[f"autocast on {device}"] = (torch.is_autocast_enabled(device), str(torch.get_autocast_dtype(device)))
    return found


def _process(model: nn.Module, inputs: list[Tensor]) -> Places:
    figures = getattr(sys.modules.get("matplotlib._pylab_helpers"), "Gcf", None)
    return {
        "warnings filters": list(warnings.filters),
        "matplotlib figures": sorted(figures.figs) if figures is not None else [],
        "file descriptors": _descriptors(),
        "threads": sorted(f"{thread.name} ({thread.ident})" for thread in threading.enumerate()),
    }


def _descriptors() -> list[str]:
    """Open files by number and what they lead to; empty where the system does not tell."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        return []
    found = []
    for number in sorted(os.listdir(folder), key=int):
        try:
            found.append(f"{number}: {os.readlink(folder / number)}")
        except OSError:  # the descriptor of the listing itself, closed by now
            continue
    return found


READERS: dict[str, Callable[[nn.Module, list[Tensor]], Places]] = {
    "hooks": _hooks,
    "training": _training,
    "parameters": _parameters,
    "values": _values,
    "buffers": _buffers,
    "requires_grad": _requires_grad,
    "grad": _grad,
    "inplace": _inplace,
    "attributes": _attributes,
    "inputs": _inputs,
    "random": _random,
    "modes": _modes,
    "process": _process,
}
"""Field → how it is read of a model and its inputs."""

FIELDS: tuple[str, ...] = tuple(READERS)
"""The names of the thirteen fields."""
