"""What models and layers take and return, whatever it is packed in."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor, nn

DEPTH = 8
"""Containers inside of each other that are looked into."""


def items(value: object) -> dict[Any, Any]:
    """What a value holds, by index, key or name: a sequence, a mapping, a dataclass, a plain object; else nothing."""
    if isinstance(value, Tensor | nn.Module | type | str | bytes):
        return {}
    try:
        if isinstance(value, list | tuple):
            return dict(enumerate(value))
        if isinstance(value, Mapping):
            return dict(value)
        if is_dataclass(value):
            return {entry.name: getattr(value, entry.name, None) for entry in fields(value)}
        return dict(getattr(value, "__dict__", {}))
    except Exception:  # code of the value's own, which need not be looked into
        return {}


def leaves(value: object) -> list[object]:
    """What holds nothing itself, in order. A container is entered once, also where it holds itself."""
    entered, found = set[int](), list[object]()
    front = [(value, DEPTH)]
    while front:
        value, depth = front.pop()
        kind = type(value)
        if isinstance(value, Tensor):
            found.append(value)
            continue
        held = list(value) if kind in (tuple, list) else list(items(value).values())  # type: ignore[call-overload]
        if not held:
            found.append(value)
        elif depth and id(value) not in entered:
            entered.add(id(value))
            front += [(item, depth - 1) for item in reversed(held)]
    return found


def tensors(value: object) -> Iterator[Tensor]:
    """The tensors among the leaves."""
    return (leaf for leaf in leaves(value) if isinstance(leaf, Tensor))
