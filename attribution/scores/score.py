"""``Score``: which number of a model's output is explained."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from attribution.errors import AttributionError, ModelError, TargetError
from attribution.running.upload import upload

if TYPE_CHECKING:
    from attribution.scores.classes import ClassScore

Output = Any
"""Whatever a model returns."""


@dataclass(frozen=True, eq=False)
class Finding:
    """What should not be so on the clean output.

    Attributes:
        flag: A bool on the device of the output; on an accelerator it is read together with other flags.
        then: The error; or a text for the provenance where the answer stands nevertheless.
    """

    flag: Tensor
    then: Callable[[], AttributionError] | str


class Score(ABC):
    """One number per example and target, from what a model returns.

    A subclass is a frozen dataclass with ``eq=False``: scores compare by value, tensors included. It implements
    `values`. What depends on the clean output (the predicted class, a predicted region) is fixed once, by `choose` and
    `chosen`, so that clean, covered, noisy and interpolated inputs are asked the same.

    Everywhere below ``examples`` (B,) int64 says to which example of the batch each row of the output belongs. Covered
    and interpolated batches show an example many times.
    """

    per_example: ClassVar[tuple[str, ...]] = ()
    """Fields that hold a tensor whose first axis is that of the examples, or of length 1 where it is common to all."""

    mixes: ClassVar[bool] = False
    """Whether a score depends on other columns of `matrix` than its own."""

    def by_default(self, default: "ClassScore") -> Self:
        """This score, where classes are read as the technique reads them by default."""
        return self

    @abstractmethod
    def values(self, output: Output, examples: Tensor) -> Tensor:
        """(B, T), differentiable: the scores of outputs, on the device of the output.

        Raises:
            ModelError: The output has no such number.
        """

    def check(self, examples: int) -> Self:
        """This score in a form that fits so many examples, before any work.

        Raises:
            TargetError: It cannot be asked of them.
        """
        for name in self.per_example:
            held = getattr(self, name)
            if isinstance(held, Tensor) and len(held) not in (1, examples):
                raise TargetError(
                    f"{type(self).__name__}.{name} has {len(held)} rows for {examples} examples; give one row for "
                    "each, or one for all"
                )
        return self

    def rows(self, part: slice) -> Self:
        """The score of a part of the examples, which are counted from 0 there."""
        held = {name: getattr(self, name) for name in self.per_example}
        cut = {name: each[part] for name, each in held.items() if isinstance(each, Tensor) and len(each) > 1}
        return self.having(**cut) if cut else self

    def choose(self, output: Output, examples: Tensor) -> Mapping[str, Tensor]:
        """What the clean output decides, by field, one row per example; nothing by default."""
        return {}

    def chosen(self, choices: Mapping[str, Tensor]) -> Self:
        """This score with what the clean output decided."""
        return self.having(**choices) if choices else self

    def findings(self, output: Output, examples: Tensor) -> Sequence[Finding]:
        """What is wrong or odd on the clean output, for a score that is settled; nothing by default."""
        return ()

    def having(self, **changed: Any) -> Self:
        """The same score with other fields, which are not checked anew: they come from scores that were."""
        other = copy.copy(self)
        for name, value in changed.items():
            object.__setattr__(other, name, value)
        return other

    def on(self, device: torch.device) -> Self:
        """The same score with its tensors on a device."""
        held = {name: each for name, each in _held(self).items() if isinstance(each, Tensor) and each.device != device}
        return self.having(**{name: upload(each, device) for name, each in held.items()}) if held else self

    @property
    def of_layer(self) -> str | None:
        """A layer whose output is taken in place of the model's: the forward ends there."""
        return None

    # A classifier's logits are a matrix of which the score picks entries. Engines that know what a logit is (closed
    # forms, proofs) work on that matrix. For every other score it is the scores themselves.

    @property
    def logits(self) -> bool:
        """Whether the scores are entries of the model's own matrix of logits, so that closed forms may be tried."""
        return False

    def matrix(self, output: Output, examples: Tensor) -> Tensor:
        """(B, K): what the scores are picked from."""
        return self.values(output, examples)

    def score_of(self, matrix: Tensor) -> Tensor:
        """(B, K) → (B, K): the scores of all columns."""
        return matrix

    def columns(self, matrix: Tensor) -> Tensor:
        """(n, T) int64: which columns of the clean matrix (n, K) are explained."""
        return torch.arange(matrix.shape[1], device=matrix.device).expand(len(matrix), -1).contiguous()

    def room(self, allowed: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """(B, K): how far scores may be off where the matrix may be off by ``allowed``.

        Args:
            allowed: (B, K).
            before: (B, K), scores of the clean inputs.
            after: (B, K), of the changed ones.
        """
        return allowed.to(before.dtype)

    def scale(self, output: Output, examples: Tensor, matrix: Tensor) -> Tensor:
        """(B, K): the size by which the rounding of each column goes; its own by default."""
        return matrix.detach().abs()

    def names(self, columns: Tensor) -> tuple[tuple[str, ...], ...]:
        """A few words for each example and target, given the columns (n, T)."""
        several = columns.shape[1] > 1
        return tuple(tuple(f"{self} {t}" if several else str(self) for t in range(columns.shape[1])) for _ in columns)

    @abstractmethod
    def __str__(self) -> str:
        """A few words: in figures, files and reports."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and _comparable(self) == _comparable(other)

    def __hash__(self) -> int:
        return hash((type(self), tuple(map(_hash, _comparable(self)))))


def whole(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """What the clean output decided, of a batch from that of its parts, in order."""
    if len(parts) == 1:
        return dict(parts[0])
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def per_row(values: Tensor, rows: int, what: str) -> Tensor:
    """Refuse values whose first axis is not the batch's.

    Raises:
        ModelError: They are such ones.
    """
    if values.ndim == 0 or len(values) != rows:
        shape = tuple(values.shape)
        raise ModelError(f"{what} has shape {shape} for {rows} examples; expected one row per example")
    return values


def _held(score: Score) -> dict[str, Any]:
    """Fields by name; of a score that is no dataclass, its attributes."""
    return {f.name: getattr(score, f.name) for f in fields(score)} if is_dataclass(score) else dict(vars(score))


def _comparable(score: Score) -> tuple[Any, ...]:
    """What two equal scores share."""
    left_out: set[str] = {f.name for f in fields(score) if not f.compare} if is_dataclass(score) else set()
    return tuple(_plain(value) for name, value in sorted(_held(score).items()) if name not in left_out)


def _plain(value: Any) -> Any:
    """A value by its content, where Python would compare identities or element by element."""
    if isinstance(value, Tensor):
        host = value.detach().cpu().flatten().clone(memory_format=torch.contiguous_format)  # an expanded one too
        return str(host.dtype), tuple(value.shape), host.view(torch.uint8).numpy().tobytes()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, list | tuple):
        return type(value), tuple(map(_plain, value))
    if isinstance(value, Mapping):
        return type(value), {key: _plain(each) for key, each in value.items()}
    return value


def _hash(value: Any) -> int:
    """Equal values have equal hashes; of a value without one that of its type."""
    try:
        return hash(value)
    except TypeError:
        return hash(type(value))
