"""Whether a copy of a model says what the model says: both are run once, from the same random numbers."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attribution.inputs.inputs import Inputs
from attribution.isolation.restore import run_itself, turn
from attribution.isolation.torch_modes import devices_of, note_random
from attribution.isolation.twins import Held
from attribution.isolation.undo import Undo
from attribution.running.execution import lost
from attribution.running.nested import leaves

WITHIN = {torch.float64: 1e-10, torch.float32: 1e-5}
"""How far two outputs may be apart as a part of the largest value; of other dtypes four units in the last place."""


def same(
    model: nn.Module, copy: nn.Module, beside: list[nn.Module], image: Inputs, held: Sequence[Held] = ()
) -> bool | None:
    """Whether the copy's output on an image equals the model's own; both are left as they were found.

    Args:
        model: The user's. It is run under the lock, in eval mode by its flags.
        copy: Of it.
        beside: Modules that the model runs without having registered them.
        image: One example.
        held: What hooks of the model write into.

    Returns:
        ``None`` where nothing can be said: the model fails, or does not repeat itself.
    """
    undo = Undo()
    try:
        try:
            with torch.no_grad():
                turn.take(undo)
                run_itself(undo, model, beside, held)
                run_itself(undo, copy)
                restart = note_random(undo, devices_of(model, *image.tensors()))
                try:
                    wanted = image.clone().into(model)
                except Exception as error:  # the call itself will fail alike, and say why
                    if lost(error):
                        raise
                    return None
                restart()
                try:
                    found = image.clone().into(copy)
                except MemoryError:
                    return None
                except Exception as error:
                    if lost(error):
                        raise
                    return None if isinstance(error, torch.OutOfMemoryError) else False
                if equal(wanted, found):
                    return True
                restart()
                return False if equal(wanted, image.clone().into(model)) else None
        finally:
            undo.back()
    finally:
        undo.back()


def equal(wanted: Any, found: Any) -> bool:
    """Whether two outputs hold the same tensors within rounding, in the same places."""
    a, b = list(_told(wanted)), list(_told(found))
    return len(a) == len(b) and all(map(_alike, a, b))


def _alike(a: Any, b: Any) -> bool:
    """Two tensors or numbers; tensors whose values cannot be read together count by their kind."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return type(a) is type(b) and (a == b or (a != a and b != b))
    if type(a) is not type(b) or a.dtype != b.dtype or a.layout != b.layout or a.is_nested != b.is_nested:
        return False
    if a.is_meta or a.is_nested or a.is_quantized:
        return a.is_meta == b.is_meta and (a.is_nested or a.shape == b.shape)
    if a.layout != torch.strided:
        a, b = a.to_dense(), b.to_dense()
    return _close(a, b)


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    if torch.equal(a, b) or not a.numel():
        return True
    if not (a.is_floating_point() or a.is_complex()):
        return False
    if not torch.equal(a.isfinite(), b.isfinite()) or not torch.equal(a.isnan(), b.isnan()):
        return False
    finite, infinite = a.isfinite(), a.isinf()
    if not torch.equal(a[infinite], b[infinite]):
        return False
    if not finite.any():
        return True
    real = a.real.dtype if a.is_complex() else a.dtype
    wide = torch.promote_types(a.dtype, torch.float32)
    a, b = a[finite].to(wide), b[finite].to(wide)
    return bool((a - b).abs().max() <= WITHIN.get(real, 4 * torch.finfo(real).eps) * a.abs().max())


def _told(value: Any) -> Iterator[Any]:
    """The tensors and numbers in an output."""
    return (leaf for leaf in leaves(value) if isinstance(leaf, Tensor | bool | int | float))
