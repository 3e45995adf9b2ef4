"""Where a path to the inputs begins: one number, one per channel, or a tensor."""

from collections.abc import Mapping
from math import isfinite

import numpy as np
import torch
from torch import Tensor

from attribution import numbers
from attribution.errors import InputError
from attribution.inputs.inputs import Inputs
from attribution.techniques import each_input

One = float | tuple[float, ...] | Tensor
Baseline = One | Mapping[str, One]


def checked(owner: str, value: object) -> Baseline:
    """One baseline, or one for each explained input by its name or index.

    Raises:
        InputError: It is none of these.
    """
    return each_input.checked(owner, "baseline", value, _one)


def _one(owner: str, value: object) -> One:
    """A finite number, a tuple of them, or a detached float64 tensor of them on the host.

    Raises:
        InputError: It is none of these.
    """
    number = numbers.real(value)
    if number is not None and isfinite(number):
        return number
    try:
        given = value if isinstance(value, Tensor) else np.asarray(value)
        found = torch.as_tensor(given, device="cpu").detach()
        usable = found.ndim > 0 and found.numel() > 0 and not found.is_complex() and bool(found.isfinite().all())
        found = found.double().clone() if usable else found
    except (TypeError, ValueError, RuntimeError):
        usable = False
    if not usable:
        raise InputError(f"{owner}.baseline is {value!r}; give a finite number, one per channel, or a tensor of them")
    return tuple(map(float, found.tolist())) if found.ndim == 1 else found


def laid(owner: str, baseline: Baseline, inputs: Inputs) -> dict[str, Tensor]:
    """The baseline of each explained input, in its dtype, of a shape that broadcasts to it.

    Raises:
        InputError: It does not fit one of them.
    """
    found = {}
    for name in inputs.explained:
        one: One = each_input.named(owner, "baseline", baseline, name, inputs)
        found[name] = _laid(owner, one, name, inputs.values[name])
    return found


def _laid(owner: str, baseline: One, name: str, x: Tensor) -> Tensor:
    if isinstance(baseline, float):
        return x.new_full((1,) * x.ndim, baseline)
    found = torch.as_tensor(baseline).to(x.device, x.dtype)
    if isinstance(baseline, tuple):
        found = found.reshape(1, -1, *[1] * (x.ndim - 2))
    elif found.ndim == x.ndim - 1:
        found = found[None]
    fits = found.ndim == x.ndim and all(a in (1, b) for a, b in zip(found.shape, x.shape, strict=True))
    if not fits:
        given = f"{len(baseline)} values" if isinstance(baseline, tuple) else f"shape {tuple(baseline.shape)}"
        raise InputError(
            f"{owner}.baseline has {given}, {name!r} has shape {tuple(x.shape)}; give a number, one per channel, or a "
            "tensor of that shape, with or without the axis of the examples"
        )
    return found


def comparable(value: object) -> object:
    """A field of a technique in a form that is equal and hashed by value; a tensor is neither."""
    if isinstance(value, Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, Mapping):
        return tuple((name, comparable(each)) for name, each in value.items())
    return value
