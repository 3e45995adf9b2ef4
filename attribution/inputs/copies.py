"""Copies of what a model is given beside the explained tensors."""

from typing import Any

import numpy as np
from torch import Tensor

DEPTH = 8
"""Lists inside of each other that are copied."""


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
