"""What a model may be shown, checked before any work."""

from cmath import isfinite
from itertools import chain

import torch
from torch import Tensor, nn
from torch.masked import MaskedTensor

from attribution.errors import InputError, NonFiniteError


def check(inputs: object, model: nn.Module, *, autocast: bool = False) -> Tensor:
    """The inputs, if they are a float (N, C, H, W) tensor on the model's device and in its dtype.

    Whether they are finite is for `Guards` to look at; `not_finite` says where they are not.

    Raises:
        InputError: Not such a tensor.
    """
    if not isinstance(inputs, Tensor):
        found = f"a {type(inputs).__module__}.{type(inputs).__name__}"
        raise InputError(f"inputs are {found}; give a torch.Tensor of shape (N, C, H, W), e.g. by torch.from_numpy")
    if inputs.is_nested or inputs.layout != torch.strided:
        form = "nested" if inputs.is_nested else f"of layout {inputs.layout}"
        remedy = "pad or crop the images to one size" if inputs.is_nested else "use inputs.to_dense()"
        raise InputError(f"inputs are {form}; expected a dense tensor (N, C, H, W): {remedy}")
    if isinstance(inputs, MaskedTensor):
        raise InputError("inputs are a masked tensor; a model gets every pixel: use inputs.to_tensor(value)")
    if inputs.ndim != 4:
        hint = "; for one image use inputs[None]" if inputs.ndim == 3 else ""
        raise InputError(f"inputs have shape {tuple(inputs.shape)}; expected (N, C, H, W){hint}")
    if 0 in inputs.shape:
        raise InputError(
            f"inputs have shape {tuple(inputs.shape)}: an axis is empty; give at least one image of one pixel"
        )
    if not inputs.dtype.is_floating_point:
        raise InputError(f"inputs are {inputs.dtype}; give floats, transformed as the model was trained")
    reference = next((t for t in chain(model.parameters(), model.buffers()) if t.is_floating_point()), None)
    if reference is not None and reference.device != inputs.device:
        raise InputError(
            f"inputs are on {inputs.device}, the model on {reference.device}; use inputs.to({str(reference.device)!r})"
        )
    if reference is not None and not autocast and reference.dtype != inputs.dtype:
        dtypes = {p.dtype for p in model.parameters() if p.is_floating_point()}
        if inputs.dtype not in dtypes:
            raise InputError(
                f"inputs are {inputs.dtype}, the model is {reference.dtype}; use inputs.to({reference.dtype})"
            )
    if inputs.is_meta:
        raise InputError("inputs are on the meta device, where tensors have no values; make them on the CPU")
    return inputs


def finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite; one sum, and a closer look only where that is not finite."""
    return isfinite(tensor.sum().item()) or bool(torch.isfinite(tensor).all())


def not_finite(inputs: Tensor) -> NonFiniteError:
    """The error for inputs with NaN or infinity: names the first place."""
    first = tuple((~torch.isfinite(inputs)).nonzero()[0].tolist())
    return NonFiniteError(
        f"inputs hold {inputs[first].item()} at (n, c, y, x) = {first}; remove it before asking for an explanation"
    )
