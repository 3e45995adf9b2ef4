"""Copies of what a model is given beside the explained tensors, and what they hold."""

from collections.abc import Hashable
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

DEPTH = 8
"""Lists inside of each other that are looked into."""


class Untold(Exception):  # nobody's error: what it says is that nothing can be said
    """Two such values may differ although nothing that can be read does."""


def copied(value: Any, depth: int = DEPTH) -> Any:
    """Tensors and arrays on memory of their own, in new lists, tuples and dicts; whatever else there is, as it is."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if not depth:
        return value
    if type(value) in (list, tuple):
        return type(value)(copied(each, depth - 1) for each in value)
    if type(value) is dict:
        return {key: copied(each, depth - 1) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(copied(each, depth - 1) for each in value))
    return value


def content(value: Any, depth: int = DEPTH) -> Hashable:
    """Equal for values that hold the same numbers and texts, in lists, tuples and dicts as well.

    Raises:
        Untold: An object of another kind is among them.
    """
    kind = type(value).__name__
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return kind, repr(value)
    if (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not (value.is_nested or value.is_meta or value.is_quantized)
    ):
        flat = value.detach().cpu().flatten().clone(memory_format=torch.contiguous_format)  # an expanded one too
        return kind, value.shape, value.dtype, blake2b(flat.view(torch.uint8).numpy().tobytes()).digest()
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return kind, value.shape, str(value.dtype), blake2b(value.tobytes()).digest()
    if depth and isinstance(value, list | tuple):
        return kind, tuple(content(each, depth - 1) for each in value)
    if depth and type(value) is dict:
        return kind, tuple((repr(key), content(each, depth - 1)) for key, each in value.items())
    raise Untold
