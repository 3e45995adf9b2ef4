"""``ValueScore``: a number that a model returns for each example."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from attribution import numbers
from attribution.errors import ModelError, TargetError
from attribution.scores.outputs import Selector, checked, described, select
from attribution.scores.score import Output, Score, per_row


@dataclass(frozen=True, eq=False)
class ValueScore(Score):
    """y[n, index]: one number of the output, as it is.

    Args:
        index: Where in one example's output the number stands: an int, or as many ints as it has axes, negative ones
            counted from the end; or one such place for each example, (N, A) ints for A axes, as ``[(1, 0), (0, 2)]``.
            ``None``: the output is (N,), or has axes of length 1 beside that of the examples, as (N, 1) and
            (N, 1, 1, 1).
        output: Which tensor of the output; see `ClassScore`.

    Raises:
        TargetError: ``index`` is neither ints nor ``None``. When run: it is out of range, or has another number of
            places than there are examples.
        ModelError: When run: the output has no such number.
    """

    index: int | tuple[int, ...] | Sequence[Sequence[int]] | Tensor | None = None
    _: KW_ONLY
    output: Selector = None
    _reach: tuple[tuple[int, int], ...] = field(default=(), init=False, repr=False, compare=False)
    """Per axis the least and the largest entry, so that no device is waited for."""

    per_example: ClassVar[tuple[str, ...]] = ("index",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "output", checked("ValueScore", self.output))
        if self.index is None:
            return
        index = _index(self.index)
        rows = index.tolist() if isinstance(index, Tensor) else [index if isinstance(index, tuple) else (index,)]
        object.__setattr__(self, "index", index)
        object.__setattr__(self, "_reach", tuple((min(steps), max(steps)) for steps in zip(*rows, strict=True)))

    def values(self, output: Output, examples: Tensor) -> Tensor:
        """(B, 1)."""
        found = per_row(select(output, self.output), len(examples), "the model's output")
        if self.index is None:
            if found.shape[1:].numel() != 1:
                raise ModelError(
                    f"the model returns {described(found)}, several numbers per example; say which: ValueScore(index=…)"
                )
            return found.reshape(-1, 1)
        self._check(found)
        if isinstance(self.index, Tensor):
            rows = self.index.to(found.device)
            rows = rows[examples.to(found.device)] if len(rows) > 1 else rows.expand(len(found), -1)
            return found[(torch.arange(len(found), device=found.device), *rows.unbind(dim=1))].reshape(-1, 1)
        for step in self.index if isinstance(self.index, tuple) else (self.index,):
            found = found.select(1, step)
        return found.reshape(-1, 1)

    def _check(self, found: Tensor) -> None:
        """The index lies in the output.

        Raises:
            ModelError: The output has fewer axes, or more that are longer than 1.
            TargetError: It is out of range.
        """
        count, told = len(self._reach), "of each example" if isinstance(self.index, Tensor) else f"{self.index}"
        if found.ndim - 1 < count or found.shape[1 + count :].numel() != 1:
            raise ModelError(
                f"the model returns {described(found)}; index {told} has {count} "
                f"{'entry' if count == 1 else 'entries'} for {found.ndim - 1} axes beside that of the examples"
            )
        for axis, ((least, most), size) in enumerate(zip(self._reach, found.shape[1:], strict=False), start=1):
            if least < -size or most >= size:
                raise TargetError(f"ValueScore.index {told} is out of range: axis {axis} has {size} entries")

    def names(self, columns: Tensor) -> tuple[tuple[str, ...], ...]:
        """``"value"``, ``"value (1, 3)"``, or for each example its own."""
        if isinstance(self.index, Tensor):
            places = self.index.expand(len(columns), -1).tolist()
            return tuple((f"value {tuple(place) if len(place) > 1 else place[0]}",) for place in places)
        return tuple((str(self),) for _ in columns)

    def __str__(self) -> str:
        return "value" if self.index is None or isinstance(self.index, Tensor) else f"value {self.index}"


def _index(value: object) -> int | tuple[int, ...] | Tensor:
    """An int, the ints of one place, or (N, A) of a place for each example.

    Raises:
        TargetError: It is none of these, or an axis is empty.
    """
    several = numbers.items(value)
    if several is not None and any(numbers.items(each) is not None for each in several):
        given = [[numbers.integer(step) for step in numbers.items(each) or ()] for each in several]
        rows = [[step for step in row if step is not None and abs(step) < 2**63] for row in given]
        if rows[0] and all(len(rows[0]) == len(row) == len(each) for row, each in zip(rows, given, strict=True)):
            return torch.tensor(rows, dtype=torch.int64, device="cpu")
    else:
        found = tuple(map(numbers.integer, (value,) if several is None else several))
        index = tuple(each for each in found if each is not None)
        if index and len(index) == len(found):
            return index if several is not None else index[0]
    raise TargetError(
        f"ValueScore.index is {value!r}; give an int, one int per axis of an example's output, or such a place for "
        "each example"
    )


def mean_size(values: Tensor) -> Tensor:
    """(B, …) → (B, 1): the mean |value| of each example, detached."""
    wide = values.detach().to(torch.promote_types(values.dtype, torch.float32))
    return wide.abs().reshape(len(wide), -1).mean(dim=1, keepdim=True)
