"""One question to several backends, and whether their answers agree."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from torch import nn

from attribution import registry
from attribution.agreement import Agreement, all_hold, table
from attribution.attributor import Attributor
from attribution.errors import BackendNotInstalledError, InputError
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
        left_out: Where no backends were named, those of which a library is missing, and which.
    """

    attributions: dict[str, Attribution]
    agreements: dict[tuple[str, str], list[Agreement]]
    left_out: dict[str, str] = field(default_factory=dict)

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
        pairs = [f"{a} | {b}\n{table(pairs)}" for (a, b), pairs in self.agreements.items()]
        return "\n".join([*pairs, *(f"{name} left out: {why}" for name, why in self.left_out.items())])


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
        backends: At least two; ``None``: all that are installed for this technique, but for references, which say
            what another library says (`Attributor.reference`), and for those of which a library is missing.
        target: As for `explain`; what the first backend predicts is asked of the others.
        execution: As for `explain`.

    Raises:
        InputError: Fewer than two backends, or one named twice.
        BackendNotInstalledError: A library that a named backend needs is missing.
    """
    left_out: dict[str, str] = {}
    if backends is None:
        classes = _installed(technique, left_out)
    else:
        names = list(backends)
        if len(names) < 2 or len(set(names)) < len(names):
            raise _too_few(technique, names)
        classes = {name: registry.get(technique, name) for name in names}
    if len(classes) < 2:
        raise _too_few(technique, list(classes))
    attributions: dict[str, Attribution] = {}
    for name, cls in classes.items():
        attributions[name] = cls(model, technique, execution).attribute(inputs, target)
        if attributions[name].score is not None:
            target = attributions[name].score  # what the clean output settled is asked of the others
    agreements = {
        (a, b): attributions[a].technique.agreement(attributions[a], attributions[b])
        for a, b in combinations(classes, 2)
    }
    return Comparison(attributions, agreements, left_out)


def _installed(technique: Technique, left_out: dict[str, str]) -> dict[str, type[Attributor[Any]]]:
    """The attributors by backend; ``left_out`` is told of the others."""
    found = {}
    for name in registry.backends(technique.name):
        try:
            found[name] = registry.get(technique, name)
        except BackendNotInstalledError as error:
            left_out[name] = str(error)
    return found


def _too_few(technique: Technique, names: Sequence[str]) -> InputError:
    return InputError(f"comparing needs two different backends; found {list(names)} for {technique.name}")
