"""``Run``: one call, as a backend gets it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from attribution.errors import NonFiniteError, PluginError
from attribution.inputs.inputs import Inputs
from attribution.layers import ended_at
from attribution.running.execution import Execution, running
from attribution.running.guards import Guards
from attribution.scores.classes import ClassScore
from attribution.scores.outputs import select
from attribution.scores.own_rows import selectors
from attribution.scores.score import Score, whole
from attribution.technique import Technique

TechniqueT = TypeVar("TechniqueT", bound=Technique)

MASK = 64
"""How many times larger than the median class and the classes asked for a score may be that says how those round."""


@dataclass
class Run(Generic[TechniqueT]):
    """One call: all that a backend gets, and all that it may tell.

    Wherever ``examples`` (B,) is asked for, it says which rows of ``inputs`` a batch shows; ``None``: all of them, once
    and in order.

    Attributes:
        model: Isolated: eval mode, shares the user's parameters, and hooks on it are nobody else's.
        technique: What is computed, with what the user left open filled in.
        inputs: A private copy, or the user's own for an attributor of which ``only_shows`` is true; the start images
            for a technique that makes its own. The one explained tensor of them is ``inputs.tensor``.
        execution: How to run; one image per forward where the model mixes the images of a batch.
        extras: Tensors to hand on beside the maps; first axis images or filters.
        asked: The score, as it is before the clean output settled what depends on it.
        score: The same, settled; ``None`` before.
        choices: What the clean output decided, by field of the score, one row per example: predicted classes, regions.
        target: (N, T), the columns of `matrix` that are explained: classes, where the score is one of classes.
        clean: (N, T), the scores of the inputs.
        scale: (N, K), for a score that is not one of classes the size by which the rounding of each column of `matrix`
            goes; ``None`` for classes, whose logits tell it themselves.
        name: Technique and backend, for the progress bar.
        apart: Why images, windows and filters go through the model one by one; ``None`` where they need not.
        guards: What must be finite, and when that is looked at.
        compares_scores: Of the technique.
    """

    model: nn.Module
    technique: TechniqueT
    inputs: Inputs
    execution: Execution
    extras: dict[str, Tensor] = field(default_factory=dict)
    asked: Score = field(default_factory=ClassScore)
    score: Score | None = None
    target: Tensor | None = None
    clean: Tensor | None = None
    scale: Tensor | None = None
    choices: Mapping[str, Tensor] = field(default_factory=dict)
    notes: dict[str, str | int | float] = field(default_factory=dict)
    apart: str | None = None
    name: str = "work"
    guards: Guards = field(default_factory=Guards)
    compares_scores: bool = True
    _parts: list["_Part"] = field(default_factory=list)

    def forward(self, x: Tensor | Inputs, examples: Tensor | None = None, *, own: bool = False) -> Any:
        """Whatever the model returns for a batch, which it gets as a copy and cannot write into.

        For a `LayerScore` that is the layer's output, and nothing behind the layer runs.

        Args:
            x: Inputs, or a tensor (B, …) in place of the one that is explained. What else the model takes is that of
                the examples which the tensor shows.
            examples: (B,), see above.
            own: The model gets the explained tensors of ``x`` themselves, which nobody reads any more.

        Raises:
            ModelError: The model fails on these inputs.
        """
        shown = self.shown(x, examples)
        shown = shown.clone(but=shown.explained if own else ())
        layer = self.asked.of_layer
        with running(shown):
            return shown.into(self.model) if layer is None else ended_at(self.model, layer, shown)

    def shown(self, x: Tensor | Inputs, examples: Tensor | None = None) -> Inputs:
        """The inputs of a batch; see `forward`."""
        if isinstance(x, Inputs):
            return x
        if self.inputs.plain:
            return self.inputs.replaced(x)
        if examples is None and len(x) != len(self.inputs):
            raise PluginError(
                f"{self.name}: {len(x)} rows of {len(self.inputs)} examples; give run.forward(x, examples)"
            )
        beside = self.inputs if examples is None else self.inputs[examples.to(self.inputs.device)]
        return beside.replaced(x)

    def scores(self, output: Any, examples: Tensor | None = None) -> Tensor:
        """(B, T): the score of each row and target, with graph where the output has one.

        The clean output comes first: it settles what depends on it (the predicted class or region), and its scores are
        recorded. It may come in parts, in the order of the inputs.

        Raises:
            ModelError: The output has no such score, or not one row per example.
            TargetError: A class, channel or index is out of range.
            NonFiniteError: A score that is asked about is NaN or infinite. Other classes may be masked.
                On a device other than the host it may come at the end of the call.
        """
        matrix = self.matrix(output, examples)
        if self.score is None or self.target is None:  # a part of the clean output: what is known so far
            part = self._parts[-1]
            return part.score.score_of(matrix).gather(1, part.score.columns(matrix))
        rows = self.target if examples is None else self.target[examples.to(self.target.device)]
        return self.score.score_of(matrix).gather(1, rows)

    def matrix(self, output: Any, examples: Tensor | None = None) -> Tensor:
        """(B, K), on the inputs' device: what the scores are picked from, by `target`.

        A classifier's logits, of which closed forms and proofs know more; else the scores themselves. The clean output
        settles as in `scores`.
        """
        count = len(self.inputs)
        own = self._places(count if examples is None else len(examples))
        if self.score is not None:
            return self.score.matrix(output, own if examples is None else examples).to(self.inputs.device)
        matrix, score, choices = self._chosen(output, own, whole=len(own) == count)
        wanted = self.compares_scores and not isinstance(score, ClassScore)
        scale = score.scale(output, own, matrix) if wanted else matrix.detach()
        self._parts.append(_Part(matrix.detach(), scale, score, choices, len(own)))
        if sum(part.size for part in self._parts) >= count:
            self._settle()
        return matrix

    def _places(self, count: int) -> Tensor:
        """So many examples in order; of classes only their number counts, so that nothing is launched for them."""
        return torch.arange(count, device="cpu" if isinstance(self.asked, ClassScore) else self.inputs.device)

    def _chosen(self, output: Any, own: Tensor, *, whole: bool) -> tuple[Tensor, Score, Mapping[str, Tensor]]:
        """The matrix of a part of the clean output, the score as that part settles it, and what it decided."""
        first = sum(part.size for part in self._parts)
        part = self.asked if whole else self.asked.rows(slice(first, first + len(own)))
        part = part.on(self.inputs.device)
        choices = part.choose(output, own)
        score = part.chosen(choices)
        for finding in (*score.findings(output, own), *selectors(score, output, len(own))):
            if isinstance(finding.then, str):
                self.guards.tell(finding.flag, partial(self.note, "score", finding.then))
            else:
                self.guards.never(finding.flag, finding.then)
        return score.matrix(output, own).to(self.inputs.device), score, choices

    def _settle(self) -> None:
        """Record what the whole clean output says.

        Where the technique compares scores, ``extras["largest_score"]`` (N,) is the largest finite |score| of any
        column, the size that rounding goes by; at most `MASK` times the median column's and the asked ones', since a
        masked class says nothing of the others.
        """
        parts, self._parts = self._parts, []
        if len(parts) == 1:
            self.choices, score, matrix = parts[0].choices, parts[0].score, parts[0].matrix
        else:
            self.choices = whole([part.choices for part in parts])
            score = self.asked.chosen(self.choices).on(self.inputs.device)
            matrix = torch.cat([part.matrix for part in parts])
        self.target = score.columns(matrix)
        scores = score.score_of(matrix)
        self.score, self.clean = score, scores.gather(1, self.target)
        self.guards.finite(self.clean, _lost)
        if self.compares_scores:
            sizes = scores.abs().nan_to_num(0.0, 0.0)  # a masked class has no size
            if not isinstance(score, ClassScore):
                scale = parts[0].scale if len(parts) == 1 else torch.cat([part.scale for part in parts])
                self.scale = sizes = scale.to(sizes.device, sizes.dtype)
            usual = torch.maximum(medians(sizes), self.clean.abs().amax(dim=1))
            self.extras["largest_score"] = torch.minimum(sizes.amax(dim=1), MASK * usual)

    @property
    def settled(self) -> tuple[Score, Tensor]:
        """The score, and the columns (N, T) of `matrix` that are explained, once the clean output was given.

        Raises:
            PluginError: It was not.
        """
        if self.score is None or self.target is None:
            raise PluginError(f"{self.name}: run.scores was not given the whole output for the clean inputs yet")
        return self.score, self.target

    def logits(self, output: Any) -> Tensor:
        """(B, K): the matrix of logits in an output, whatever score is explained.

        Raises:
            ModelError: There is none.
        """
        matrix = select(output, None)
        return ClassScore().matrix(matrix, torch.arange(len(matrix), device=matrix.device)).to(self.inputs.device)

    def note(self, key: str, value: str | int | float) -> None:
        """Put a fact into the result's provenance: engine, counts, what could not be honoured."""
        self.notes[key] = value

    @contextmanager
    def progress(self, total: int, unit: str) -> Iterator[Callable[[], None]]:
        """A function to call after each of ``total`` units of work; shows a bar if ``execution.progress``.

        The bar says whose work it counts and in what, and is full where the work was done; an engine that gives up on
        the way closes its own, and the next one begins another.
        """
        if not self.execution.progress:
            yield lambda: None
            return
        from tqdm.auto import tqdm

        with tqdm(total=total, desc=f"{self.name}, {unit}s", unit=unit, leave=False) as bar:
            yield lambda: bar.update() and None


def _lost() -> NonFiniteError:
    return NonFiniteError(
        "the model's scores of the classes asked about hold NaN or infinity on the clean inputs; "
        "nothing can be explained"
    )


def medians(rows: Tensor) -> Tensor:
    """The median of each row, the lower of two: (N, K) → (N,). NaN is left out.

    Torch's own has no deterministic kernel on CUDA, and refuses where one is asked for.
    """
    if not torch.are_deterministic_algorithms_enabled():
        return rows.nanmedian(dim=1).values
    count = (~rows.isnan()).sum(dim=1, keepdim=True)
    return rows.sort(dim=1).values.gather(1, ((count - 1) // 2).clamp(min=0))[:, 0]


@dataclass(frozen=True)
class _Part:
    """What a part of the clean output settled.

    Attributes:
        matrix: (B, K).
        scale: (B, K), by which its rounding goes.
        score: Of these examples.
        choices: What they decided.
        size: B.
    """

    matrix: Tensor
    scale: Tensor
    score: Score
    choices: Mapping[str, Tensor]
    size: int
