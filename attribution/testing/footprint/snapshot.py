"""``Snapshot``: the fields of state as they were, and what changed in them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attribution.testing.footprint.fields import READERS, Places

_ABSENT = "nothing"


@dataclass(frozen=True)
class Change:
    """One violated place: ``field`` is one of `FIELDS`, ``place`` a module, tensor or flag; both states in words."""

    field: str
    place: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.field}: {self.place} was {self.before}, is {self.after}"


class Snapshot:
    """What a model, its inputs, torch and the process are like now.

    Args:
        model: Any module; it is read, never run.
        inputs: Tensors that the user owns; ``None`` is left out.
    """

    def __init__(self, model: nn.Module, *inputs: Tensor | None) -> None:
        self._model = model
        self._inputs = [tensor for tensor in inputs if tensor is not None]
        self._fields = self._read()

    def changes(self) -> list[Change]:
        """Everything that differs from when the snapshot was taken, in the order of `FIELDS`."""
        now = self._read()
        found = []
        for field, before in self._fields.items():
            after = now[field]
            for place in {**before, **after}:
                old, new = before.get(place, _ABSENT), after.get(place, _ABSENT)
                if not _same(old, new):
                    found.append(Change(field, place, *_told(old, new)))
        return found

    def _read(self) -> dict[str, Places]:
        return {field: read(self._model, self._inputs) for field, read in READERS.items()}


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(_bytes(a), _bytes(b))
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(_same, a, b))
    return type(a) is type(b) and bool(a == b)


def _bytes(tensor: Tensor) -> Tensor:
    """Bit patterns, so that NaN equals itself and −0 differs from 0."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _told(before: Any, after: Any) -> tuple[str, str]:
    """Both states in a few words: only what differs of sequences and tensors."""
    if isinstance(before, Tensor) and isinstance(after, Tensor) and before.shape == after.shape:
        unequal = (before != after).reshape(-1)
        first = int(unequal.int().argmax()) if unequal.any() else 0
        values = [tensor.reshape(-1)[first].item() for tensor in (before, after)]
        return f"{values[0]!r}", f"{values[1]!r} ({int(unequal.sum())} of {before.numel()} values differ)"
    if isinstance(before, list | tuple) and isinstance(after, list | tuple) and len(before) == len(after):
        different = [(x, y) for x, y in zip(before, after, strict=True) if not _same(x, y)]
        return _told(*different[0]) if different else (_short(before), _short(after))
    if isinstance(before, list) and isinstance(after, list):
        gone = [item for item in before if item not in after]
        come = [item for item in after if item not in before]
        return f"{len(before)} long", f"{len(after)} long ({_short([*gone, *come])})"
    return _short(before), _short(after)


def _short(value: object, most: int = 80) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= most else f"{text[:most]}…"
