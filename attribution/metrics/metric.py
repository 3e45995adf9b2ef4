"""``Metric``: one number per photo and target that says something about a map; ``Case``: what it is asked about."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from attribution.errors import InputError
from attribution.inputs.inputs import Inputs
from attribution.metrics.cells import lattice, places_of
from attribution.metrics.controls import Control
from attribution.result import Attribution
from attribution.running.execution import Execution
from attribution.scores.score import Score
from attribution.technique import Technique

Better = Literal["higher", "lower"]

Explained = Callable[[nn.Module, Inputs, Technique, Score | None], Attribution]
"""How a technique is asked again: of a model, inputs and a settled score."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A map of some photos, and how to have it again.

    Attributes:
        model: The user's.
        inputs: N photos.
        given: The maps: an attribution, or a tensor (N, T, *cells).
        target: What is scored: settled, or a technique's own reading of classes.
        explained: Asks a technique again, by the same backend.
        control: Makes the map, where it is one that knows nothing of the model.
        seed: Of whatever a metric draws.
        first: Place of the first photo in the data set.
        execution: Of forwards.
    """

    model: nn.Module
    inputs: Inputs
    given: Attribution | Tensor
    target: Score | None = None
    explained: Explained | None = None
    control: Control | None = None
    seed: int = 0
    first: int = 0
    execution: Execution = field(default_factory=Execution)

    @property
    def map(self) -> Tensor:
        """(N, T, …): the only map as the user sees it.

        Raises:
            InputError: There are several.
        """
        return self.given.map if isinstance(self.given, Attribution) else self.given

    @property
    def technique(self) -> Technique | None:
        """Which made the map, if it can be asked again."""
        return self.given.technique if isinstance(self.given, Attribution) and self.explained else None

    def again(
        self,
        *,
        model: nn.Module | None = None,
        inputs: Inputs | None = None,
        technique: Technique | None = None,
        examples: Tensor | None = None,
    ) -> Attribution:
        """The same question to another model, of other inputs or by changed parameters.

        Args:
            model: ``None``: the user's.
            inputs: ``None``: the photos.
            technique: ``None``: the same.
            examples: To which photo each row of ``inputs`` belongs.
        """
        if self.explained is None or not isinstance(self.given, Attribution):
            raise InputError("this map was given as it is, so that no technique can be asked again")
        score = self.given.score
        if score is not None and examples is not None:
            score = of_examples(score, examples)
        return self.explained(model or self.model, inputs or self.inputs, technique or self.given.technique, score)


class Metric(ABC):
    """A number per photo and target. A subclass is a frozen dataclass of parameters."""

    name: ClassVar[str]
    better: ClassVar[Better]

    @abstractmethod
    def measure(self, case: Case) -> Mapping[str, Tensor]:
        """(N, T) by variant, such as a depth or a backend; ``""`` for the only one. Empty where it cannot be asked.

        Raises:
            AttributionError: The map does not fit.
        """


def of_examples(score: Score, examples: Tensor) -> Score:
    """A score of N photos, for rows that show these photos."""
    held = {name: getattr(score, name) for name in score.per_example}
    chosen = {
        name: each[(examples if len(each) > 1 else torch.zeros_like(examples)).to(each.device)]
        for name, each in held.items()
        if isinstance(each, Tensor) and each.ndim
    }
    return score.having(**chosen) if chosen else score


def over_places(map_: Tensor, inputs: Inputs, name: str | None = None) -> Tensor:
    """(N, T, *cells) → (N, T, *places): each place has the value of its cell; channels in between are kept."""
    name = inputs.explained[0] if name is None else name
    places = places_of(inputs, name)
    kept = map_.shape[: map_.ndim - len(places)]
    cells = tuple(map_.shape[len(kept) :])
    if len(kept) not in (2, 3):
        raise InputError(f"the map has shape {tuple(map_.shape)} for places {places}; expected (N, T, *cells)")
    return map_.flatten(len(kept))[..., lattice(cells, places, map_.device)].reshape(*kept, *places)


def largest_change(first: Tensor, second: Tensor) -> Tensor:
    """(N, T): max|a − b| / max|a| over each map (N, T, …); 0 where both are zero everywhere."""
    a, b = (each.detach().double().flatten(2) for each in (first, second))
    change, size = (a - b).abs().amax(dim=2), a.abs().amax(dim=2)
    return torch.where(change == 0, 0.0, change / size)


def changed(technique: Technique, **parameters: object) -> Technique:
    """The technique with other parameters."""
    values: dict[str, object] = parameters
    return replace(technique, **values)
