"""``FinerScore``: why this class, and not those that look like it."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from math import isfinite
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from attribution import numbers
from attribution.errors import TargetError
from attribution.scores.classes import ClassScore
from attribution.scores.difference import class_names
from attribution.scores.parameters import word
from attribution.scores.score import Finding, Output, Score
from attribution.scores.targets import Target

Weights = Literal["equal", "softmax"]

_REFERENCES = "how many of the nearest classes, or the classes as ints"


@dataclass(frozen=True, eq=False)
class FinerScore(Score):
    """z[c] − strength · Σ over d of u[d] · z[d]: the logit of a class c, less a mean of those of similar classes d.

    Args:
        target: The class c, in a form of `ClassScore`, or a `ClassScore` of logits; ``None``: the predicted one.
        references: How many similar classes: those of which the logits on the clean inputs are nearest to that of c,
            at most all others; they are fixed then. Or the classes themselves, the same for all inputs.
        strength: How much of the others is taken off, at least 0. 0: the logit of c.
        weights: ``"equal"``: u = 1 / their number. ``"softmax"``: u = softmax of the logits of these classes alone,
            which the gradient goes through.

    With the defaults this is torch-cam's ``FinerCAM``; with ``strength=1, weights="softmax"`` it is that of
    pytorch-grad-cam.

    Raises:
        TargetError: A field is of another form. When run: a class is out of range, or there is no other class.
        ModelError: When run: the output has no logits (N, K).

    Source: Z. Zhang et al., *Finer-CAM: Spotting the Difference Reveals Finer Details for Visual Explanation*, CVPR
    2025, section 3.2. Departs from the paper: nowhere; both weights are readings of its mean over similar classes.
    """

    target: ClassScore | Target = None
    _: KW_ONLY
    references: int | Sequence[int] | Tensor = 3
    strength: float = 0.6
    weights: Weights = "equal"

    per_example: ClassVar[tuple[str, ...]] = ("references",)

    def __post_init__(self) -> None:
        own = self.target if isinstance(self.target, ClassScore) else ClassScore(self.target)
        if not own.logits:
            raise TargetError(f"FinerScore.target is a {own}; give a class, or ClassScore(…, of='logit')")
        object.__setattr__(self, "target", own.having(of="logit"))
        object.__setattr__(self, "references", _references(self.references))
        strength = numbers.real(self.strength)
        if strength is None or not isfinite(strength) or strength < 0:
            raise TargetError(f"FinerScore.strength is {self.strength!r}; give a finite number of at least 0")
        object.__setattr__(self, "strength", strength)
        word("FinerScore", "weights", self.weights, ("equal", "softmax"))

    @property
    def own(self) -> ClassScore:
        """The score of the class."""
        return self.target  # type: ignore[return-value]  # what was something else was replaced

    def check(self, examples: int) -> Self:
        """With a class for each example."""
        return super().check(examples).having(target=self.own.check(examples))

    def rows(self, part: slice) -> Self:
        """With the classes of these."""
        return super().rows(part).having(target=self.own.rows(part))

    def choose(self, output: Output, examples: Tensor) -> Mapping[str, Tensor]:
        """The predicted class, where none is named, and the classes nearest to it, where they are not named."""
        found = self.own.choose(output, examples)
        choices = {f"target.{name}": tensor for name, tensor in found.items()}
        if not isinstance(self.references, int):
            return choices
        matrix = self.own.matrix(output, examples).detach()
        classes = self.own.chosen(found).columns(matrix)
        count = min(self.references, matrix.shape[1] - 1)
        if not count:
            raise TargetError("FinerScore needs other classes, and the model has one")
        off = (matrix[:, None] - matrix.gather(1, classes)[..., None]).abs()
        off = off.scatter(2, classes[..., None], torch.inf)
        return choices | {"references": off.sort(dim=2, stable=True).indices[..., :count]}

    def chosen(self, choices: Mapping[str, Tensor]) -> Self:
        """With both."""
        own = {name.partition(".")[2]: tensor for name, tensor in choices.items() if name != "references"}
        near = {name: tensor for name, tensor in choices.items() if name == "references"}
        return self.having(target=self.own.chosen(own), **near)

    def findings(self, output: Output, examples: Tensor) -> Sequence[Finding]:
        """A class that was named is out of range."""
        references, classes = self.references, self.own.matrix(output, examples).shape[1]
        if isinstance(references, tuple) and max(references) >= classes:
            raise TargetError(
                f"FinerScore.references names class {max(references)}; the model has {classes}, 0 to {classes - 1}"
            )
        return ()

    def values(self, output: Output, examples: Tensor) -> Tensor:
        """(B, T)."""
        own = self.own.values(output, examples)
        others = self._others(output, examples, own.shape[1])
        if self.weights == "equal":
            return own - self.strength * others.mean(dim=2)
        return own - self.strength * (others.softmax(dim=2) * others).sum(dim=2)

    def scale(self, output: Output, examples: Tensor, matrix: Tensor) -> Tensor:
        """|z[c]| and the largest of the others."""
        own = self.own.values(output, examples).detach()
        return own.abs() + self.strength * self._others(output, examples, own.shape[1]).detach().abs().amax(dim=2)

    def _others(self, output: Output, examples: Tensor, targets: int) -> Tensor:
        """Logits (B, T, R) of the similar classes.

        Raises:
            TargetError: They are not settled.
        """
        matrix = self.own.matrix(output, examples)
        if isinstance(self.references, int):
            raise TargetError("the similar classes are those of the clean inputs, which only these can settle")
        if isinstance(self.references, tuple):
            return matrix[:, list(self.references)][:, None].expand(-1, targets, -1)
        held = torch.as_tensor(self.references).to(matrix.device)
        own = held.expand(len(matrix), -1, -1) if len(held) == 1 else held[examples.to(held.device)]
        found: Tensor = matrix.gather(1, own.flatten(1)).unflatten(1, own.shape[1:])
        return found

    def names(self, columns: Tensor) -> tuple[tuple[str, ...], ...]:
        """``"class 3 against 5, 8, 1"``."""
        rows = class_names(self.own, columns)
        held = self.references

        def against(n: int, t: int) -> str:
            near = held[n % len(held), t].tolist() if isinstance(held, Tensor) else held
            return ", ".join(map(str, near)) if isinstance(near, list | tuple) else f"{near} classes"

        return tuple(
            tuple(f"{name} against {against(n, t)}" for t, name in enumerate(row)) for n, row in enumerate(rows)
        )

    def __str__(self) -> str:
        return "logit against similar classes"


def _references(given: object) -> "int | tuple[int, ...] | Tensor":
    """A number of classes, different classes, or (N, T, R) of a score that was settled.

    Raises:
        TargetError: Something else.
    """
    if isinstance(given, Tensor) and given.ndim == 3 and given.dtype == torch.int64:
        return given.detach()
    count = numbers.integer(given)
    if count is not None and count > 0:
        return count
    several = numbers.items(given) or ()
    classes = [numbers.integer(each) for each in several]
    found = tuple(each for each in classes if each is not None and each >= 0)
    if not found or len(found) < len(classes) or len(set(found)) < len(found):
        raise TargetError(f"FinerScore.references is {given!r}; give {_REFERENCES}, each once")
    return found
