"""One question to several backends, and whether their answers agree."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, overload

from torch import nn

from attribution import drawing, registry
from attribution.agreement import Agreement, all_hold, table
from attribution.api import checked, targets_of
from attribution.attributor import Attributor
from attribution.calls import answers
from attribution.comparison.judgement import Judgement
from attribution.comparison.kinks import kinked
from attribution.comparison.witness import held_to_float64
from attribution.errors import BackendNotInstalledError, InputError, named
from attribution.members import Member
from attribution.result import Attribution
from attribution.running.execution import Execution
from attribution.scores.reading import Asked
from attribution.technique import Technique

_TOLD = 200

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Comparison:
    """The same question, answered by several backends.

    Attributes:
        attributions: By backend.
        agreements: By pair of backends, one verdict per layer × image × target.
        left_out: Where no backends were named, those of which a library is missing, and which.
        judgements: Where backends that answer in float32 or half differ in gradients by more than the tolerance: by
            backend, whether it is off float64 by rounding or by a bug, for each layer × image × target; see
            ``attribution.comparison.kinks``. Else empty.
    """

    attributions: dict[str, Attribution]
    agreements: dict[tuple[str, str], list[Agreement]]
    left_out: dict[str, str] = field(default_factory=dict)
    judgements: dict[str, list[Judgement]] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Every pair of backends agrees, or both are off float64 by rounding; and every pair proved something."""
        return all(
            all_hold(pairs) or (self._rounds(a) and self._rounds(b)) for (a, b), pairs in self.agreements.items()
        )

    @property
    def verdict(self) -> str:
        """``"agree"``, ``"DISAGREE"``, or ``"prove nothing"``: none differs, and all are too small."""
        if self.holds:
            return "agree"
        differ = any(not a.holds for pairs in self.agreements.values() for a in pairs)
        return "DISAGREE" if differ else "prove nothing"

    def _rounds(self, backend: str) -> bool:
        judged = self.judgements.get(backend, ())
        return all(each.verdict == "rounding" for each in judged) and any(each.sharp for each in judged)

    @property
    def largest(self) -> float:
        """The largest scaled difference, max|a − b| / max|map|."""
        return max((a.scaled for pairs in self.agreements.values() for a in pairs), default=0.0)

    def table(self) -> str:
        """The verdicts as text, one line each."""
        pairs = [f"{a} | {b}\n{table(pairs)}" for (a, b), pairs in self.agreements.items()]
        for backend, judged in self.judgements.items():
            pairs += [f"{backend} | float64", *map(str, judged)]
        return "\n".join([*pairs, *(f"{name} left out: {why}" for name, why in self.left_out.items())])

    def figure(
        self, image: Any = None, *, backends: tuple[str, str] | None = None, mean: Any = None, std: Any = None
    ) -> "Figure":
        """The answers of two backends about the first image, and their difference, a line per layer and target.

        Args:
            image: What the model saw, as for `Attribution.figure`.
            backends: Which two; ``None``: those furthest apart.
            mean: Per channel, of the transform that made ``image``; with ``std``.
            std: Per channel.

        Raises:
            InputError: A backend was not asked, or see `Attribution.figure`.
        """
        from attribution import plots
        from attribution.plots import backdrops

        pair = backends or max(
            self.agreements, key=lambda pair: max((a.scaled for a in self.agreements[pair]), default=0)
        )
        for name in pair:
            if name not in self.attributions:
                raise InputError(f"{name!r} was not compared; there are {', '.join(self.attributions)}")
        a, b = (self.attributions[name].raw for name in pair)
        if image is not None and not (mean is None and std is None):
            image = backdrops.pictures(image, len(next(iter(a.values()))), mean=mean, std=std)
        technique, model = self.attributions[pair[0]].technique, self.attributions[pair[0]].provenance.get("model", "")
        title = " · ".join(filter(None, [technique.words, str(model)]))
        return plots.difference_figure(a, b, pair, image=image, title=title)

    def __repr__(self) -> str:
        technique = next(iter(self.attributions.values())).technique.name
        return (
            f"<Comparison {technique}: {', '.join(self.attributions)} {self.verdict}, at most {self.largest:.1e} apart>"
        )

    def _repr_html_(self) -> str:
        picture = drawing.embedded(self.figure(), repr(self))
        return f"<p>{html.escape(repr(self)[1:-1])}</p><pre>{html.escape(self.table())}</pre>{picture}"


@overload
def compare(
    model: nn.Module,
    inputs: Any,
    technique: Technique,
    *,
    backends: Sequence[str] | None = None,
    target: Asked = None,
    execution: Execution = Execution(),
) -> Comparison: ...


@overload
def compare(
    model: nn.Module,
    inputs: Any,
    technique: Mapping[str, Technique],
    *,
    backends: Sequence[str] | None = None,
    target: Asked = None,
    execution: Execution = Execution(),
) -> dict[str, Comparison]: ...


def compare(
    model: nn.Module,
    inputs: Any,
    technique: Technique | Mapping[str, Technique],
    *,
    backends: Sequence[str] | None = None,
    target: Asked = None,
    execution: Execution = Execution(),
) -> Comparison | dict[str, Comparison]:
    """Ask several backends the same question and hold their raw maps against each other.

    Args:
        model: As for `explain`.
        inputs: As for `explain`.
        technique: As for `explain`; or several by name, as for `explain_many`, which each backend is then asked
            together.
        backends: At least two; ``None``: all that are installed for a technique, but for references, which say what
            another library says (`Attributor.reference`), and for those of which a library is missing.
        target: As for `explain`; what the first backend predicts is asked of the others.
        execution: As for `explain`.

    Returns:
        A comparison, or one for each name.

    Raises:
        InputError: Fewer than two backends, or one named twice.
        BackendNotInstalledError: A library that a named backend needs is missing.
    """
    if not isinstance(technique, Mapping):
        return _compared(model, inputs, {"": technique}, backends, {"": target}, execution)[""]
    asked = checked(technique)
    targets = targets_of(asked, target)
    return _compared(model, inputs, asked, backends, targets, execution)


def _compared(
    model: nn.Module,
    inputs: Any,
    asked: Mapping[str, Technique],
    backends: Sequence[str] | None,
    targets: dict[str, Asked],
    execution: Execution,
) -> dict[str, Comparison]:
    """Backend by backend, in the order in which techniques name them; each is asked what the first one settled."""
    askers: dict[str, dict[str, Attributor[Any]]] = {}
    left_out: dict[str, dict[str, str]] = {label: {} for label in asked}
    for label, technique in asked.items():
        with named(label):
            for name, cls in _classes(technique, backends, left_out[label]).items():
                askers.setdefault(name, {})[label] = cls(model, technique, execution)
    found: dict[str, dict[str, Attribution]] = {label: {} for label in asked}
    for name, together in askers.items():
        members = [Member(asker, targets[label], label) for label, asker in together.items()]
        for label, answer in zip(together, answers(members, inputs), strict=True):
            found[label][name] = answer
            if answer.score is not None:
                targets[label] = answer.score  # what the clean output settled is asked of the others
    compared = {}
    for label, own in found.items():
        pairs = {(a, b): own[a].technique.agreement(own[a], own[b]) for a, b in combinations(own, 2)}
        compared[label] = Comparison(own, pairs, left_out[label])
        if kinked(asked[label]) and not compared[label].holds:
            compared[label] = _judged(compared[label], model, inputs, execution)
    return compared


def _judged(found: Comparison, model: nn.Module, inputs: Any, execution: Execution) -> Comparison:
    """With judgements; without, and with the reason, where the model cannot be asked in float64."""
    try:
        return replace(found, judgements=held_to_float64(model, inputs, found.attributions, execution=execution))
    except Exception as error:  # whatever a copy of the user's model may raise
        told = " ".join(str(error).split()) or type(error).__name__
        return replace(found, left_out=found.left_out | {"float64": told[:_TOLD]})


def _classes(
    technique: Technique, backends: Sequence[str] | None, left_out: dict[str, str]
) -> dict[str, type[Attributor[Any]]]:
    """The attributors by backend, at least two; ``left_out`` is told of those of which a library is missing."""
    if backends is None:
        found = {}
        for name in registry.backends(technique.name):
            try:
                found[name] = registry.get(technique, name)
            except BackendNotInstalledError as error:
                left_out[name] = str(error)
        names = list(found)
    else:
        names = list(backends)
        found = {name: registry.get(technique, name) for name in names} if len(names) > 1 else {}
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(f"comparing needs two different backends; found {names} for {technique.name}")
    return found
