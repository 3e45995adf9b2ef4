"""What a model may be shown, checked before any work."""

from cmath import isfinite
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.masked import MaskedTensor

from attribution.errors import InputError, NonFiniteError
from attribution.inputs.inputs import AXES, Inputs

_FORMS = "(N, F), (N, C, T), (N, C, H, W) or (N, C, D, H, W)"

_FROM_ARRAYS = "torch.from_numpy makes one of an array"

_CONVOLUTIONS: dict[type[nn.Module], int] = {nn.Conv1d: 3, nn.Conv2d: 4, nn.Conv3d: 5}
"""What takes a single example without its axis of examples too, in silence → the rank of a batch."""


def check(given: object, model: nn.Module, *, autocast: bool = False) -> Inputs:
    """The inputs, if what is explained in them are floats in the model's dtype, or integers, on its device.

    Whether they are finite is for `Guards` to look at; `not_finite` says where they are not.

    Raises:
        InputError: Not such inputs.
    """
    if not isinstance(given, Tensor | tuple | list | dict | Inputs) and not hasattr(given, "keys"):
        found = f"a {type(given).__module__}.{type(given).__name__}"
        made = "what your transform makes of it, transform(image)[None]" if hasattr(given, "convert") else _FROM_ARRAYS
        raise InputError(f"inputs are {found}; give a torch.Tensor of shape (N, C, H, W): {made}")
    if isinstance(given, Tensor):
        _check_form(given, _rank(model))
    inputs = Inputs.of(given)
    if not inputs.explained:
        raise InputError(f"nothing in the inputs ({inputs}) can be explained; give a float tensor {_FORMS}")
    for name in inputs.explained:
        if inputs.values[name] is not given:
            _check_form(inputs.values[name], named=True)
        _check_tensor(inputs.values[name], model, autocast=autocast)
    return inputs


def _rank(model: nn.Module) -> int:
    """Of the batches that the first convolution takes; 0 where there is none."""
    return next((_CONVOLUTIONS[type(module)] for module in model.modules() if type(module) in _CONVOLUTIONS), 0)


def _check_form(inputs: Tensor, rank: int = 0, *, named: bool = False) -> None:
    if inputs.is_nested or inputs.layout != torch.strided:
        form = "nested" if inputs.is_nested else f"of layout {inputs.layout}"
        remedy = "pad or crop the images to one size" if inputs.is_nested else "use inputs.to_dense()"
        raise InputError(f"inputs are {form}; expected a dense tensor (N, C, H, W): {remedy}")
    if isinstance(inputs, MaskedTensor):
        raise InputError("inputs are a masked tensor; a model gets every pixel: use inputs.to_tensor(value)")
    if inputs.ndim not in AXES or inputs.ndim == rank - 1:
        expected = _FORMS if not rank else f"(N, C, {', '.join('DHW'[5 - rank :]) if rank > 3 else 'T'})"
        hint = "; for one example use inputs[None]" if inputs.ndim == (rank or 4) - 1 else ""
        raise InputError(f"inputs have shape {tuple(inputs.shape)}; expected {expected}{hint}")
    if not inputs.dtype.is_floating_point and not named:
        raise InputError(
            f"inputs are {inputs.dtype}; give floats, transformed as the model was trained, or where the model takes "
            "integers say what their axes are: Inputs.of((ids,), axes={0: 'n f'})"
        )


def floats_only(inputs: Inputs, technique: str) -> None:
    """Refuse explained integers, of which there is no gradient.

    Raises:
        InputError: There are some.
    """
    for name in inputs.explained:
        if not inputs.values[name].is_floating_point():
            raise InputError(
                f"{name!r} holds {inputs.values[name].dtype}, and {technique} explains floats; integers are for "
                "Occlusion and Activations"
            )


def _check_tensor(inputs: Tensor, model: nn.Module, *, autocast: bool) -> None:
    if inputs.is_complex() or inputs.is_quantized:
        raise InputError(f"inputs are {inputs.dtype}; give floats or integers")
    if 0 in inputs.shape:
        raise InputError(
            f"inputs have shape {tuple(inputs.shape)}: an axis is empty; give at least one image of one pixel"
        )
    reference = next((t for t in chain(model.parameters(), model.buffers()) if t.is_floating_point()), None)
    if reference is not None and reference.device != inputs.device:
        raise InputError(
            f"inputs are on {inputs.device}, the model on {reference.device}; use inputs.to({str(reference.device)!r})"
        )
    if not inputs.is_floating_point():  # bools and integers, which the user named
        reference = None
    if reference is not None and not autocast and reference.dtype != inputs.dtype:
        dtypes = {p.dtype for p in model.parameters() if p.is_floating_point()}
        if inputs.dtype not in dtypes:
            raise InputError(
                f"inputs are {inputs.dtype}, the model is {reference.dtype}; use inputs.to({reference.dtype})"
            )
    if inputs.is_meta:
        raise InputError("inputs are on the meta device, where tensors have no values; make them on the CPU")


# Torch makes an operation ready when it first runs, under a lock that a fork keeps for good if it comes just then. The
# look at the inputs is the first operation of a call: a process that forks beside a first call would meet it there.
torch.zeros(1, device="cpu").sum()


def finite(tensor: Tensor) -> float | complex | None:
    """The sum of a tensor of which no value is NaN or infinite; ``None`` where one is.

    A closer look is taken only where the sum is not finite.
    """
    total: float | complex = tensor.sum().item()
    return total if isfinite(total) or bool(torch.isfinite(tensor).all()) else None


def not_finite(inputs: Tensor) -> NonFiniteError:
    """The error for inputs with NaN or infinity: names the first place."""
    first: tuple[Any, ...] = tuple((~torch.isfinite(inputs)).nonzero()[0].tolist())
    axes = ", ".join({2: "nf", 3: "nct", 5: "ncdhw"}.get(inputs.ndim, "ncyx"))
    return NonFiniteError(
        f"inputs hold {inputs[first].item()} at ({axes}) = {first}; remove it before asking for an explanation"
    )
