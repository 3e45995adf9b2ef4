"""Where a path to the inputs begins: one number, one per channel, or a tensor."""

from collections.abc import Mapping
from functools import partial
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


def checked(owner: str, value: object, field: str = "baseline") -> Baseline:
    """One baseline, or one for each explained input by its name or index.

    Raises:
        InputError: It is none of these.
    """
    return each_input.checked(owner, field, value, partial(_one, field))


def _one(field: str, owner: str, value: object) -> One:
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
        raise InputError(f"{owner}.{field} is {value!r}; give a finite number, one per channel, or a tensor of them")
    return tuple(map(float, found.tolist())) if found.ndim == 1 else found


def laid(owner: str, baseline: Baseline, inputs: Inputs) -> dict[str, Tensor]:
    """The baseline of each explained input, in its dtype, of a shape that broadcasts to it.

    Raises:
        InputError: It does not fit one of them.
    """
    found = {}
    for name in inputs.explained:
        one: One = each_input.named(owner, "baseline", baseline, name, inputs)
        found[name] = _laid(f"{owner}.baseline", one, name, inputs.values[name], rows=(1, len(inputs)))
    return found


def several(owner: str, baselines: Baseline, inputs: Inputs) -> dict[str, Tensor]:
    """Of each explained input B baselines, in its dtype, (B, …) with the shape of one example or 1 along each axis.

    Raises:
        InputError: They do not fit one of the inputs, or two inputs have different numbers of them, neither 1.
    """
    found = {}
    for name in inputs.explained:
        one: One = each_input.named(owner, "baselines", baselines, name, inputs)
        rows = (len(one),) if isinstance(one, Tensor) else (1,)
        found[name] = _laid(f"{owner}.baselines", one, name, inputs.values[name], rows=(1, *rows))
    if len(counts := {len(each) for each in found.values()} - {1}) > 1:
        raise InputError(f"{owner}.baselines has {sorted(counts)} rows for the inputs; give as many for each, or one")
    return found


def _laid(field: str, baseline: One, name: str, x: Tensor, rows: tuple[int, ...]) -> Tensor:
    """With one of so many ``rows`` along the first axis."""
    if isinstance(baseline, float):
        return x.new_full((1,) * x.ndim, baseline)
    held = torch.tensor(baseline, dtype=torch.float64, device="cpu") if isinstance(baseline, tuple) else baseline
    found = held.to(x.device, x.dtype)
    if isinstance(baseline, tuple):
        found = found.reshape(1, -1, *[1] * (x.ndim - 2))
    elif found.ndim == x.ndim - 1:
        found = found[None]
    fits = found.ndim == x.ndim and len(found) in rows
    fits = fits and all(a in (1, b) for a, b in zip(found.shape[1:], x.shape[1:], strict=True))
    if not fits:
        given = f"{len(baseline)} values" if isinstance(baseline, tuple) else f"shape {tuple(baseline.shape)}"
        raise InputError(
            f"{field} has {given}, {name!r} has shape {tuple(x.shape)}; give a number, one per channel, or a "
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
