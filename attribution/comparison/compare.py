"""One question to several backends, and whether their answers agree."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from torch import nn

from attribution import registry
from attribution.agreement import Agreement, all_hold, table
from attribution.errors import InputError
from attribution.result import Attribution
from attribution.running.execution import Execution
from attribution.scores.reading import Asked
from attribution.technique import Technique


@dataclass(frozen=True, eq=False)
class Comparison:
    """The same question, answered by several backends.

    Attributes:
        attributions: By backend.
        agreements: By pair of backends, one verdict per layer × image × target.
    """

    attributions: dict[str, Attribution]
    agreements: dict[tuple[str, str], list[Agreement]]

    @property
    def holds(self) -> bool:
        """Every pair of backends agrees, and every pair proved something."""
        return all(all_hold(pairs) for pairs in self.agreements.values())

    @property
    def largest(self) -> float:
        """The largest scaled difference, max|a − b| / max|map|."""
        return max((a.scaled for pairs in self.agreements.values() for a in pairs), default=0.0)

    def table(self) -> str:
        """The verdicts as text, one line each."""
        return "\n".join(f"{a} | {b}\n{table(pairs)}" for (a, b), pairs in self.agreements.items())


def compare(
    model: nn.Module,
    inputs: Any,
    technique: Technique,
    *,
    backends: Sequence[str] | None = None,
    target: Asked = None,
    execution: Execution = Execution(),
) -> Comparison:
    """Ask several backends the same question and hold their raw maps against each other.

    Args:
        model: As for `explain`.
        inputs: As for `explain`.
        technique: As for `explain`.
        backends: At least two; ``None``: all that are installed for this technique.
        target: As for `explain`; what the first backend predicts is asked of the others.
        execution: As for `explain`.

    Raises:
        InputError: Fewer than two backends, or one named twice.
    """
    names = list(registry.backends(technique.name) if backends is None else backends)
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(f"comparing needs two different backends; found {names} for {technique.name}")
    classes = [registry.get(technique, name) for name in names]
    attributions: dict[str, Attribution] = {}
    for name, cls in zip(names, classes, strict=True):
        attributions[name] = cls(model, technique, execution).attribute(inputs, target)
        if attributions[name].score is not None:
            target = attributions[name].score  # what the clean output settled is asked of the others
    agreements = {
        (a, b): attributions[a].technique.agreement(attributions[a], attributions[b]) for a, b in combinations(names, 2)
    }
    return Comparison(attributions, agreements)
