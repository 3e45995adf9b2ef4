"""An output with its rows at other places of the batch."""

import copy
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor


class Unmoved(Exception):  # nobody's error: what it says is that nothing can be said
    """Which part of an output belongs to which example cannot be told."""


def moved(output: Any, rows: int, by: int) -> Any:
    """The output with each row ``by`` places on, the last ones first; tensors in it are copies.

    Rows are those of tensors whose first axis has as many, and entries of lists with one entry per example.

    Raises:
        Unmoved: It is an object of which the parts are not known.
    """
    if isinstance(output, Tensor):
        dense = not output.is_nested and str(output.layout) == "torch.strided"
        return output.roll(by, 0) if dense and output.ndim and len(output) == rows else output
    if output is None or isinstance(output, bool | int | float | complex | str | bytes):
        return output
    if isinstance(output, dict):
        return _dict(output, rows, by)
    if isinstance(output, Mapping):
        return {key: moved(value, rows, by) for key, value in output.items()}
    if isinstance(output, list | tuple):
        return _sequence(output, rows, by)
    if is_dataclass(output) and not isinstance(output, type):
        return _object(output, {field.name: getattr(output, field.name) for field in fields(output)}, rows, by)
    if hasattr(output, "__dict__") and not callable(output):
        return _object(output, vars(output), rows, by)
    raise Unmoved


def _dict(output: dict[Any, Any], rows: int, by: int) -> Any:
    """Of a class of its own without a call of it, as its arguments may be others than the entries."""
    found = {key: moved(value, rows, by) for key, value in output.items()}
    if type(output) is dict:
        return found
    other = type(output).__new__(type(output))
    for name, value in vars(output).items() if hasattr(output, "__dict__") else ():
        other.__dict__[name] = moved(value, rows, by)
    plain = OrderedDict if isinstance(other, OrderedDict) else dict
    for key, value in found.items():
        plain.__setitem__(other, key, value)
    return other


def _sequence(output: Any, rows: int, by: int) -> Any:
    if hasattr(output, "_fields"):
        return type(output)(*(moved(item, rows, by) for item in output))
    each = len(output) == rows and not any(isinstance(i, Tensor) and i.ndim and len(i) == rows for i in output)
    items = [output[(place - by) % rows] for place in range(rows)] if each else [moved(i, rows, by) for i in output]
    try:
        return type(output)(items)
    except Exception as error:
        raise Unmoved from error


def _object(output: Any, held: Mapping[str, Any], rows: int, by: int) -> Any:
    try:
        other = copy.copy(output)
        for name, value in held.items():
            object.__setattr__(other, name, moved(value, rows, by))
    except Unmoved:
        raise
    except Exception as error:
        raise Unmoved from error
    return other
