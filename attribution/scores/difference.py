"""``DifferenceScore``: why this, and not that."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from attribution import numbers
from attribution.errors import TargetError
from attribution.scores.classes import ClassScore, Of
from attribution.scores.score import Finding, Output, Score


@dataclass(frozen=True, eq=False)
class DifferenceScore(Score):
    """a − b of two scores, in their unit.

    Args:
        a: A score, or a class. A class is read as ``b`` reads classes, if that says so; else as the technique does: by
            the logit, for `Occlusion` by the probability.
        b: Likewise. Both have as many targets, or one of them has one.

    Raises:
        TargetError: One is neither a score nor an int, or only one of them is of a layer, or they are of two layers.
            When run: the numbers of targets do not fit.

    Source: Z. Zhang et al., *Finer-CAM: Spotting the Difference Reveals Finer Details for Visual Explanation*, CVPR
    2025, section 3.2 (Grad-CAM of the difference of two logits).
    """

    a: Score | int
    b: Score | int

    def __post_init__(self) -> None:
        for name in ("a", "b"):
            given = getattr(self, name)
            index = numbers.integer(given)
            if index is not None:
                object.__setattr__(self, name, ClassScore(index))
            elif not isinstance(given, Score):
                raise TargetError(f"DifferenceScore.{name} is {given!r}; give a score, or a class as an int")
        a, b = self.sides
        if a.of_layer != b.of_layer:
            raise TargetError(
                f"DifferenceScore reads {_source(a)} and {_source(b)}, and one forward ends at one place; "
                "give two scores of the output, or of one layer"
            )

    @property
    def sides(self) -> tuple[Score, Score]:
        """Both, a class as the score of it."""
        return self.a, self.b  # type: ignore[return-value]  # what was an int was replaced

    def _each(self, change: Callable[[Score], Score]) -> Self:
        """With both sides changed."""
        a, b = self.sides
        return self.having(a=change(a), b=change(b))

    @property
    def of_layer(self) -> str | None:
        """That of both."""
        return self.sides[0].of_layer

    def by_default(self, default: ClassScore) -> Self:
        """Both; a side that does not say how it reads classes reads them as the other one does."""
        of = _reads(self)
        return self._each(lambda side: side.by_default(default if of is None else default.having(of=of)))

    def check(self, examples: int) -> Self:
        """Both."""
        return self._each(lambda side: side.check(examples))

    def rows(self, part: slice) -> Self:
        """Of both."""
        return self._each(lambda side: side.rows(part))

    def on(self, device: torch.device) -> Self:
        """Both."""
        return self._each(lambda side: side.on(device))

    def choose(self, output: Output, examples: Tensor) -> Mapping[str, Tensor]:
        """What either chooses."""
        return {
            f"{name}.{field}": tensor
            for name, side in zip("ab", self.sides, strict=True)
            for field, tensor in side.choose(output, examples).items()
        }

    def chosen(self, choices: Mapping[str, Tensor]) -> Self:
        """To either its own."""

        def of(side: str) -> dict[str, Any]:
            return {name.partition(".")[2]: t for name, t in choices.items() if name.partition(".")[0] == side}

        a, b = self.sides
        return self.having(a=a.chosen(of("a")), b=b.chosen(of("b")))

    def findings(self, output: Output, examples: Tensor) -> Sequence[Finding]:
        """Of both."""
        return [found for side in self.sides for found in side.findings(output, examples)]

    def values(self, output: Output, examples: Tensor) -> Tensor:
        """(B, T)."""
        a, b = (side.values(output, examples) for side in self.sides)
        if a.shape[1] != b.shape[1] and 1 not in (a.shape[1], b.shape[1]):
            raise TargetError(
                f"DifferenceScore has {a.shape[1]} targets of a and {b.shape[1]} of b; give as many of each"
            )
        return a - b

    def scale(self, output: Output, examples: Tensor, matrix: Tensor) -> Tensor:
        """The sum of both sizes."""
        sizes = [side.scale(output, examples, side.values(output, examples)) for side in self.sides]
        return sizes[0] + sizes[1]

    def names(self, columns: Tensor) -> tuple[tuple[str, ...], ...]:
        """``"class 3 − class 5"``."""
        a, b = (class_names(side, columns) for side in self.sides)
        return tuple(
            tuple(f"{one[t % len(one)]} − {other[t % len(other)]}" for t in range(columns.shape[1]))
            for one, other in zip(a, b, strict=True)
        )

    def __str__(self) -> str:
        return f"{self.a} − {self.b}"


def class_names(score: Score, columns: Tensor) -> tuple[tuple[str, ...], ...]:
    """Those of a score inside another one, of which the columns are not those of classes."""
    if isinstance(score, ClassScore):
        classes = (
            score.target if isinstance(score.target, Tensor) else torch.arange(columns.shape[1], device=columns.device)
        )
        return score.names(classes if classes.ndim == 2 else classes.expand(len(columns), -1))
    return score.names(columns)


def _reads(score: Score) -> Of | None:
    """How a score says that classes are read, which scores of classes carry as ``own``."""
    if isinstance(score, DifferenceScore):
        return next(filter(None, map(_reads, score.sides)), None)
    own = getattr(score, "own", score)
    return own.of if isinstance(own, ClassScore) else None


def _source(score: Score) -> str:
    return "the output" if score.of_layer is None else f"layer {score.of_layer!r}"
