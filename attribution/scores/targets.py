"""From what a user may call a target to (N, T) class indices."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from attribution import numbers
from attribution.errors import TargetError
from attribution.running.upload import upload

Target = int | Sequence[int] | Sequence[Sequence[int]] | Tensor | Literal["all"] | None
"""An int: every image. (N,): one per image. (N, T): several per image. "all": every class. None: the prediction."""

_FORMS = "an int, one int per image, T ints per image, 'all', or None for the predicted class"


def check(target: Target, images: int) -> Tensor | Literal["all"] | None:
    """Settle the form of a target before any forward: (N, T) int64 on the host, ``"all"`` or ``None``.

    Args:
        target: See `Target`.
        images: N.

    Raises:
        TargetError: Bools, floats, negatives, label names, ragged rows, or a length other than N.
    """
    if target is None or (isinstance(target, str) and target == "all"):
        return target
    values = (
        torch.full((), target, dtype=torch.int64, device="cpu")
        if type(target) is int and abs(target) < 2**63
        else integers(target)
    )
    if values.ndim == 0:
        values = values.expand(images, 1)
    elif values.ndim == 1:
        if len(values) != images:
            raise TargetError(
                f"target has {len(values)} entries for {images} image{'s' * (images != 1)}; flat means one per image. "
                f"For several targets per image nest them: [[3, 5]] × {images}"
            )
        values = values[:, None]
    if values.ndim != 2 or values.shape[0] != images or values.shape[1] == 0:
        raise TargetError(f"target has shape {tuple(values.shape)}; expected ({images}, T) with T at least 1")
    if (values < 0).any():
        raise TargetError(f"target {int(values.min())} is negative; classes are counted from 0")
    return values.contiguous()


def resolve(target: Tensor | Literal["all"] | None, logits: Tensor) -> Tensor:
    """(N, T) int64 on the logits' device, from a checked target and (N, K) logits.

    Raises:
        TargetError: A class is not below K.
    """
    classes = logits.shape[1]
    if target is None:
        return logits.argmax(dim=1, keepdim=True)
    if isinstance(target, str):
        return torch.arange(classes, device=logits.device).expand(len(logits), classes).contiguous()
    if int(target.max()) >= classes:
        raise TargetError(
            f"target {int(target.max())} is out of range; the model has {classes} classes, 0 to {classes - 1}"
        )
    return target if logits.device.type == "cpu" else upload(target, logits.device)


def integers(target: int | Sequence[int] | Sequence[Sequence[int]] | Tensor) -> Tensor:
    """Ints in any form as int64 on the host.

    Raises:
        TargetError: Bools, floats, label names, ragged rows.
    """
    if isinstance(target, str | bytes):
        raise TargetError(f"target is {target!r}; give {_FORMS} (the command line takes label names)")
    if isinstance(target, Tensor):
        _check_plain(target)
        if target.dtype.is_floating_point or target.dtype.is_complex or target.dtype == torch.bool:
            raise TargetError(f"target is a tensor of {target.dtype}; give {_FORMS}")
        return target.detach().to("cpu", torch.int64, copy=True)
    values = _nested(target)
    try:
        return torch.tensor(values, dtype=torch.int64, device="cpu")
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:
        raise TargetError(f"target {target!r} is not rectangular or too large ({error}); give {_FORMS}") from error


def _check_plain(target: Tensor) -> None:
    if target.is_nested or target.is_meta or target.is_quantized or target.layout != torch.strided:
        raise TargetError(f"target is a nested, sparse, quantised or meta tensor; give {_FORMS}")


def _nested(target: object) -> "int | list[Any]":
    """Ints in lists, whatever sequences and arrays they came in.

    Raises:
        TargetError: Something else than an int.
    """
    if isinstance(target, Tensor):
        _check_plain(target)
    if hasattr(target, "tolist"):
        target = target.tolist()
    several = numbers.items(target)
    if several is not None:
        return [_nested(item) for item in several]
    value = numbers.integer(target)
    if value is None:
        raise TargetError(f"target holds {target!r} ({type(target).__name__}); give {_FORMS}")
    return value
