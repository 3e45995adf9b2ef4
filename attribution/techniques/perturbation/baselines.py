"""What covers: a number, one per channel, a tensor, or a blurred copy of the input itself."""

from collections.abc import Mapping
from math import ceil, isfinite
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attribution import numbers
from attribution.errors import InputError
from attribution.running.upload import upload
from attribution.techniques import each_input

One = float | tuple[float, ...] | Tensor | Literal["blur"]
Baseline = One | Mapping[str, One]

_FORMS = (
    "give a finite number, one per input channel, a tensor that fits the input (such as (C, H, W) or (N, C, H, W)), "
    "or 'blur'"
)

REACH = 4
"""How many standard deviations of the Gaussian are summed to each side; what lies beyond weighs 6e-5."""


def checked(owner: str, value: object) -> Baseline:
    """One baseline, or one for each explained input by its name or index.

    Raises:
        InputError: It is none of these.
    """
    return each_input.checked(owner, "baseline", value, _one)


def _one(owner: str, value: object) -> One:
    """A baseline in the form that is kept: a float, a tuple of floats, a tensor on the host, or ``"blur"``.

    Raises:
        InputError: It is none of these, empty, or not finite.
    """
    if isinstance(value, str):
        if value != "blur":
            raise InputError(f"{owner}.baseline is {value!r}; {_FORMS}")
        return "blur"
    several = numbers.items(value)
    if several is not None and any(numbers.items(item) is not None for item in several):
        return _tensor(owner, value)
    found = tuple(map(numbers.real, (value,) if several is None else several))
    values = tuple(number for number in found if number is not None and isfinite(number))
    if len(values) < len(found):
        raise InputError(f"{owner}.baseline is {value!r}; {_FORMS}")
    if not values:
        raise InputError(f"{owner}.baseline is empty; {_FORMS}")
    return values[0] if several is None else values


def _tensor(owner: str, value: object) -> Tensor:
    try:
        given = value if isinstance(value, Tensor) else np.asarray(value)
        tensor = torch.as_tensor(given, device="cpu").detach().clone().contiguous()
        fits = tensor.is_floating_point() or tensor.dtype in (torch.uint8, torch.int16, torch.int32, torch.int64)
        fits = fits and tensor.numel() > 0 and bool(tensor.isfinite().all())
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{owner}.baseline is no array of numbers ({error}); {_FORMS}") from error
    if not fits:
        raise InputError(
            f"{owner}.baseline of shape {tuple(tensor.shape)}, {tensor.dtype}, is empty or holds something that is no "
            f"finite number; {_FORMS}"
        )
    return tensor


def check(owner: str, baseline: One, name: str, covered: Tensor) -> None:
    """Refuse a baseline that does not fit an input.

    Raises:
        InputError: It has another number of values than the input has channels (features of (N, F)), cannot be
            broadcast to the input, or is no integer where the input holds integers.
    """
    shape = covered.shape
    if not covered.is_floating_point() and not _whole(baseline, covered.dtype):
        given = f"of {baseline.dtype}" if isinstance(baseline, Tensor) else repr(baseline)
        raise InputError(
            f"{owner}.baseline is {given}, and {name!r} holds {covered.dtype}; give integers that it can hold"
        )
    if isinstance(baseline, tuple) and len(baseline) != shape[1]:
        what = "channels" if len(shape) > 2 else "features"
        raise InputError(
            f"{owner}.baseline has {len(baseline)} values for {shape[1]} {what} of {name!r}; give one, or {shape[1]}"
        )
    if not isinstance(baseline, Tensor):
        return
    fits = baseline.ndim <= len(shape)
    fits = fits and all(own in (1, size) for own, size in zip(baseline.shape[::-1], shape[::-1], strict=False))
    if not fits:
        raise InputError(
            f"{owner}.baseline has shape {tuple(baseline.shape)}, {name!r} {tuple(shape)}; give a tensor whose axes, "
            "counted from the last, are those of the input or 1"
        )


def _whole(baseline: One, dtype: torch.dtype) -> bool:
    """Whether a dtype without fractions holds these values."""
    if isinstance(baseline, str):
        return False
    values = torch.as_tensor(baseline, dtype=None if isinstance(baseline, Tensor) else torch.float64, device="cpu")
    return bool((values == values.to(dtype).to(values.dtype)).all())


def cover(baseline: One, inputs: Tensor, spread: tuple[float, ...]) -> Tensor:
    """What covers inputs (N, …): as many axes as they have, each of their size or 1; their dtype and device.

    Args:
        baseline: That fits them.
        inputs: (N, F), or (N, C, *places).
        spread: The standard deviation of ``"blur"`` along each place axis.
    """
    if isinstance(baseline, str):
        return blurred(inputs, spread)
    if isinstance(baseline, Tensor):
        shape = [1] * (inputs.ndim - baseline.ndim) + list(baseline.shape)
        return upload(baseline, inputs.device, inputs.dtype).view(shape)
    places = [1] * (inputs.ndim - 2)
    if not isinstance(baseline, tuple):
        return inputs.new_full((1, inputs.shape[1], *places), baseline)  # made there: nothing waits for a copy
    return torch.tensor(baseline, dtype=inputs.dtype, device=inputs.device).reshape(1, -1, *places)


def blurred(inputs: Tensor, spread: tuple[float, ...]) -> Tensor:
    """b[p] = Σ over q of g(p − q) · x[q] / Σ over q of g(p − q), g(d) = Π over axes of exp(−d² / 2σ²).

    q runs over the places of the input within `REACH` · σ of p along each axis: nothing is read beyond the border.

    Args:
        inputs: (N, F), or (N, C, *places).
        spread: σ of each place axis, in places.
    """
    wide = torch.float32 if inputs.device.type == "mps" else torch.float64
    found = inputs.to(wide)
    for axis, sigma in zip(range(-len(spread), 0), spread, strict=True):
        size = inputs.shape[axis]
        reach = min(ceil(REACH * sigma), size - 1)
        kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        weight = upload(kernel, inputs.device, wide).view(1, 1, -1)
        lines = found.movedim(axis, -1)
        summed = F.conv1d(lines.reshape(-1, 1, size), weight, padding=reach)
        total = F.conv1d(torch.ones_like(summed[:1]), weight, padding=reach)
        found = (summed / total).view(lines.shape).movedim(-1, axis)
    return found.to(inputs.dtype).contiguous()
