"""``ClassScore``: classes of a classifier."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from attribution import numbers
from attribution.errors import ModelError
from attribution.scores import targets
from attribution.scores.outputs import Selector, checked, described, select
from attribution.scores.parameters import word
from attribution.scores.score import Finding, Output, Score, per_row
from attribution.scores.targets import Target

Of = Literal["logit", "probability", "sigmoid", "log_probability"]

_OF = ("logit", "probability", "sigmoid", "log_probability")

ALREADY = (
    "the outputs lie in [0, 1] and sum to 1, as probabilities do: their {} is not the probability of a class. Explain "
    "ClassScore(of='logit') for the outputs as they are"
)
"""Put into the provenance; the answer stands, since logits may happen to look so."""


@dataclass(frozen=True, eq=False)
class ClassScore(Score):
    """The score of a class c: z[c], softmax(z)[c], σ(z[c]) or log softmax(z)[c] of the logits z (N, K).

    With one output unit (K = 1) and ``of="sigmoid"`` there are two classes: class 1 is σ(z), class 0 is 1 − σ(z).
    Trailing axes of length 1 are left out, and an output (N,) is one unit. Outputs that look like probabilities already
    are told in ``provenance["score"]`` where ``of`` makes probabilities of them once more.

    Args:
        target: An int for all examples, one int per example, (N, T) ints, ``"all"``, or ``None`` for the class with the
            largest logit on the clean inputs.
        of: What the score is: ``"logit"``; ``"probability"``, by softmax; ``"sigmoid"``, for independent labels;
            ``"log_probability"``; ``None``: the technique's own default, the logit, for `Occlusion` the probability.
            Softmax and sigmoid are taken in float32 at least.
        output: Which tensor of the output holds the logits: a key, an index, a path (``"heads.1"``), the name of an
            attribute, or a function of the output; ``None``: the output itself, or its ``logits``.

    Raises:
        TargetError: The target has another form, or ``of`` is none of the four. When run: a class is out of range.
        ModelError: When run: the output has no logits (N, K), or a single one whose softmax is always 1.
    """

    target: Target = None
    _: KW_ONLY
    of: Of | None = None
    output: Selector = None

    per_example: ClassVar[tuple[str, ...]] = ("target",)

    def __post_init__(self) -> None:
        if self.of is not None:
            object.__setattr__(self, "of", word("ClassScore", "of", self.of, _OF))
        if self.target is not None and not (isinstance(self.target, str) and self.target == "all"):
            given = numbers.integer(self.target)  # most often one
            found = targets.integers(self.target) if given is None else given
            object.__setattr__(self, "target", int(found) if isinstance(found, Tensor) and not found.ndim else found)
        object.__setattr__(self, "output", checked("ClassScore", self.output))

    def by_default(self, default: "ClassScore") -> Self:
        """With the reading of the technique where none is named."""
        return self.having(of=default.of) if self.of is None else self

    def check(self, examples: int) -> Self:
        """With the target as (N, T), ``"all"`` or ``None``.

        Raises:
            TargetError: It does not fit so many examples, or a class is negative.
        """
        return self.having(target=targets.check(self.target, examples))

    def rows(self, part: slice) -> Self:
        """With these rows of the target."""
        return self.having(target=self.target[part]) if isinstance(self.target, Tensor) else self

    def choose(self, output: Output, examples: Tensor) -> Mapping[str, Tensor]:
        """The class with the largest logit, where none is named."""
        if self.target is not None:
            return {}
        return {"target": self.matrix(output, examples).detach().argmax(dim=1, keepdim=True)}

    def findings(self, output: Output, examples: Tensor) -> Sequence[Finding]:
        """Outputs that are probabilities already, of which ``of`` makes probabilities once more."""
        if self.logits:
            return ()
        matrix = self.matrix(output, examples).detach()
        if select(output, self.output).shape[1:].numel() == 1:  # of a single unit σ(z) is the probability
            return ()
        near = torch.finfo(matrix.dtype).eps ** 0.5
        sums = matrix.sum(dim=1, dtype=torch.promote_types(matrix.dtype, torch.float32))
        probabilities = ((matrix >= 0) & (matrix <= 1)).all() & ((sums - 1).abs() <= near).all()
        return (Finding(probabilities, ALREADY.format("sigmoid" if self.of == "sigmoid" else "softmax")),)

    def on(self, device: torch.device) -> Self:
        """The same: a target is looked at on the host, and sent when it is known to be in range."""
        return self

    @property
    def logits(self) -> bool:
        """Whether the score is the logit itself."""
        return self.of in (None, "logit")

    @property
    def mixes(self) -> bool:  # type: ignore[override]
        """A softmax depends on all logits."""
        return self.of in ("probability", "log_probability")

    def values(self, output: Output, examples: Tensor) -> Tensor:
        """(B, T) for the classes (n, T) that the clean inputs settled."""
        matrix = self.matrix(output, examples)
        scores = self.score_of(matrix)
        if isinstance(self.target, str):
            return scores
        if not isinstance(self.target, Tensor):
            return scores.gather(1, self.columns(matrix))
        target = targets.resolve(self.target, matrix) if self.target.device.type == "cpu" else self.target
        return scores.gather(1, target[examples.to(target.device)])

    def matrix(self, output: Output, examples: Tensor) -> Tensor:
        """(B, K) logits; of one unit with a sigmoid (B, 2): −z and z.

        Raises:
            ModelError: There are none, or not one row per example.
        """
        found = select(output, self.output)
        logits = found[:, None] if found.ndim == 1 else found
        if logits.ndim > 2 and logits.shape[2:].numel() == 1:
            logits = logits.flatten(1)
        if logits.ndim != 2:
            raise ModelError(
                f"the model returns {described(found)}; expected logits (N, K). Of a map of scores explain a region "
                "(RegionScore), of other outputs an entry (ValueScore), or name the item that holds the logits: "
                "ClassScore(output=…)"
            )
        if logits.shape[1] == 1:
            if self.mixes:
                raise ModelError(
                    "the model has a single output, whose softmax is always 1; explain ClassScore(of='sigmoid') where "
                    "it is the logit of a class, else ClassScore(of='logit') or ValueScore()"
                )
            if self.of == "sigmoid":
                logits = torch.cat([-logits, logits], dim=1)
        return per_row(logits, len(examples), "the matrix of logits")

    def score_of(self, matrix: Tensor) -> Tensor:
        """Of all classes (B, K)."""
        if self.logits:
            return matrix
        wide = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
        if self.of == "sigmoid":
            return wide.sigmoid()
        return wide.softmax(dim=1) if self.of == "probability" else wide.log_softmax(dim=1)

    def columns(self, matrix: Tensor) -> Tensor:
        """(n, T) classes.

        Raises:
            TargetError: One is out of range.
        """
        if self.target is not None and isinstance(self.target, Tensor) and self.target.device == matrix.device:
            return self.target if self.target.device.type != "cpu" else targets.resolve(self.target, matrix)
        return targets.resolve(targets.check(self.target, len(matrix)), matrix)

    def room(self, allowed: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """P · (δ of its own logit + the mean δ of all) is what a probability may move, its logarithm without the p."""
        room = allowed.to(before.dtype)
        if self.logits:
            return room
        rounding = 8 * torch.finfo(before.dtype).eps
        if self.of == "sigmoid":
            return room / 4 + rounding
        p = torch.maximum(before, after)
        if self.of == "log_probability":
            return room + (p.exp() * room).sum(dim=1, keepdim=True) + rounding * p.abs()
        return p * (room + (p * room).sum(dim=1, keepdim=True)) + rounding

    def names(self, columns: Tensor) -> tuple[tuple[str, ...], ...]:
        """``"class 7"``."""
        return tuple(tuple(f"class {index}" for index in row) for row in columns.tolist())

    def __str__(self) -> str:
        return {"probability": "probability", "sigmoid": "sigmoid", "log_probability": "log probability"}.get(
            str(self.of), "logit"
        )
