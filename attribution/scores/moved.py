"""An output with its rows at other places of the batch, or some of them in place of others."""

import copy
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor


class Unmoved(Exception):  # nobody's error: what it says is that nothing can be said
    """Which part of an output belongs to which example cannot be told."""


def moved(output: Any, order: Sequence[int]) -> Any:
    """The output with other rows: row k is the one that was at ``order[k]``; tensors in it are copies.

    Rows are those of tensors whose first axis has as many, and entries of lists with one entry per example.

    Raises:
        Unmoved: It is an object of which the parts are not known.
    """
    if isinstance(output, Tensor):
        dense = not output.is_nested and str(output.layout) == "torch.strided"
        return taken(output, order) if dense and output.ndim and len(output) == len(order) else output
    if output is None or isinstance(output, bool | int | float | complex | str | bytes):
        return output
    if isinstance(output, dict):
        return _dict(output, order)
    if isinstance(output, Mapping):
        return {key: moved(value, order) for key, value in output.items()}
    if isinstance(output, list | tuple):
        return _sequence(output, order)
    if is_dataclass(output) and not isinstance(output, type):
        return _object(output, {field.name: getattr(output, field.name) for field in fields(output)}, order)
    if hasattr(output, "__dict__") and not callable(output):
        return _object(output, vars(output), order)
    raise Unmoved


def taken(rows: Tensor, order: Sequence[int]) -> Tensor:
    """The rows of a tensor in another order; no index is sent to a device."""
    return torch.cat([rows[place : place + 1] for place in order])


def _dict(output: dict[Any, Any], order: Sequence[int]) -> Any:
    """Of a class of its own without a call of it, as its arguments may be others than the entries."""
    found = {key: moved(value, order) for key, value in output.items()}
    if type(output) is dict:
        return found
    other = type(output).__new__(type(output))
    for name, value in vars(output).items() if hasattr(output, "__dict__") else ():
        other.__dict__[name] = moved(value, order)
    plain = OrderedDict if isinstance(other, OrderedDict) else dict
    for key, value in found.items():
        plain.__setitem__(other, key, value)
    return other


def _sequence(output: Any, order: Sequence[int]) -> Any:
    if hasattr(output, "_fields"):
        return type(output)(*(moved(item, order) for item in output))
    rows = len(order)
    each = len(output) == rows and not any(isinstance(i, Tensor) and i.ndim and len(i) == rows for i in output)
    items = [output[place] for place in order] if each else [moved(i, order) for i in output]
    try:
        return type(output)(items)
    except Exception as error:
        raise Unmoved from error


def _object(output: Any, held: Mapping[str, Any], order: Sequence[int]) -> Any:
    try:
        other = copy.copy(output)
        for name, value in held.items():
            object.__setattr__(other, name, moved(value, order))
    except Unmoved:
        raise
    except Exception as error:
        raise Unmoved from error
    return other
