"""``ValueScore``: a number that a model returns for each example."""

from dataclasses import KW_ONLY, dataclass

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
            counted from the end; ``None``: the output is (N,), or has axes of length 1
            beside that of the examples, as (N, 1) and (N, 1, 1, 1).
        output: Which tensor of the output; see `ClassScore`.

    Raises:
        TargetError: ``index`` is neither ints nor ``None``. When run: it is out of range.
        ModelError: When run: the output has no such number.
    """

    index: int | tuple[int, ...] | None = None
    _: KW_ONLY
    output: Selector = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "output", checked("ValueScore", self.output))
        if self.index is None:
            return
        several = numbers.items(self.index)
        found = tuple(map(numbers.integer, (self.index,) if several is None else several))
        index = tuple(each for each in found if each is not None)
        if len(index) < len(found) or not index:
            raise TargetError(
                f"ValueScore.index is {self.index!r}; give an int, or one int per axis of an example's output"
            )
        object.__setattr__(self, "index", index if several is not None else index[0])

    def values(self, output: Output, examples: Tensor) -> Tensor:
        """(B, 1)."""
        found = per_row(select(output, self.output), len(examples), "the model's output")
        if self.index is None:
            if found.shape[1:].numel() != 1:
                raise ModelError(
                    f"the model returns {described(found)}, several numbers per example; say which: ValueScore(index=…)"
                )
            return found.reshape(-1, 1)
        place = self.index if isinstance(self.index, tuple) else (self.index,)
        spare = found.shape[1 + len(place) :]
        if found.ndim - 1 < len(place) or spare.numel() != 1:
            raise ModelError(
                f"the model returns {described(found)}; index {self.index} has {len(place)} "
                f"{'entry' if len(place) == 1 else 'entries'} for {found.ndim - 1} axes beside that of the examples"
            )
        for axis, (step, size) in enumerate(zip(place, found.shape[1:], strict=False), start=1):
            if not -size <= step < size:
                raise TargetError(f"ValueScore.index {self.index} is out of range: axis {axis} has {size} entries")
            found = found.select(1, step)
        return found.reshape(-1, 1)

    def names(self, columns: Tensor) -> tuple[tuple[str, ...], ...]:
        """``"value"``, or ``"value (1, 3)"``."""
        return tuple((str(self),) for _ in columns)

    def __str__(self) -> str:
        return "value" if self.index is None else f"value {self.index}"


def mean_size(values: Tensor) -> Tensor:
    """(B, …) → (B, 1): the mean |value| of each example, detached."""
    wide = values.detach().to(torch.promote_types(values.dtype, torch.float32))
    return wide.abs().reshape(len(wide), -1).mean(dim=1, keepdim=True)
