"""``Explaining``: a run of which each item's results are attributions, one per technique."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from attribution import class_names, registry
from attribution.api import explain, explain_many
from attribution.class_names import ClassNames
from attribution.errors import InputError, OutputError, TargetError, UnknownAttributorError
from attribution.result import Attribution
from attribution.running.execution import Execution
from attribution.runs import fingerprint
from attribution.runs.work import Batch, Part
from attribution.saving import score_text, technique_text
from attribution.scores import targets
from attribution.scores.classes import ClassScore
from attribution.scores.reading import Asked, score_of
from attribution.scores.score import Score
from attribution.technique import Technique

KIND = "attributions"

_NAME = re.compile(r"[\w.-]+")
_BLANK = "zero everywhere"
"""The note that counts the images of a batch, and is wrong of a part of them."""

_ANYWHERE = ("progress", "offload", "graphs")
"""Fields of `Execution` on which results do not depend."""


@dataclass(frozen=True)
class Explaining:
    """Several techniques on every item, by one backend.

    Args:
        model: The model, on its device.
        techniques: By the names they have in the results.
        backend: Who computes.
        target: As `explain` takes it, the same for all items; ``None``: the prediction, or the class that the list of
            items names.
        execution: How to run.
        labels: Class names, for the table.

    Raises:
        InputError: There are no techniques, or one of them makes its own inputs.
    """

    model: nn.Module
    techniques: Mapping[str, Technique]
    backend: str = "hooks"
    target: Asked = None
    execution: Execution = Execution()
    labels: ClassNames | None = None

    @property
    def kind(self) -> str:
        """``"attributions"``."""
        return KIND

    @property
    def columns(self) -> Mapping[str, str]:
        """A line for each technique and target."""
        return {"technique": "string", "column": "int64", "target": "int64", "label": "string", "score": "double"}

    def __post_init__(self) -> None:
        if not self.techniques:
            raise InputError("a run needs a technique, such as GradCAM()")
        for name, technique in self.techniques.items():
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise InputError(f"{name!r} is no name for a technique; take letters, digits, '.', '_' and '-'")
            if not isinstance(technique, Technique):
                raise InputError(f"technique {name!r} is {technique!r}; give an instance such as GradCAM()")
            if not technique.needs_inputs:
                raise InputError(f"{technique.name} makes its own images, so that it has nothing to ask of a data set")
            registry.get(technique, self.backend)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Techniques, who computes them, what is explained, and how."""
        brought = {registry.distribution(each.name, self.backend) for each in self.techniques.values()}
        return {
            "techniques": {name: _technique_settings(each) for name, each in self.techniques.items()},
            "backend": {
                "name": self.backend,
                "from": ", ".join(sorted(brought)),
                "libraries": fingerprint.versions(self.backend) if self.backend == "captum" else {},
            },
            "target": self._target_text(),
            "execution": execution_text(self.execution),
        }

    def __call__(self, batch: Batch, keep: Sequence[int]) -> Part:
        """The answers of all techniques, of the rows that are kept."""
        tensors: dict[str, Tensor] = {}
        headers: dict[str, dict[str, str]] = {}
        rows: list[list[Mapping[str, Any]]] = [[] for _ in keep]
        for name, found in answers(self, batch.inputs, asked_of(self.target, batch)).items():
            mine = chosen(found, keep, len(batch))
            held, headers[name] = mine.packed()
            tensors |= {f"{name}/{key}": tensor for key, tensor in held.items()}
            for lines, more in zip(rows, self._rows(name, mine, len(keep)), strict=True):
                lines += more
        return Part(tensors, {"answers": headers}, rows)

    def _rows(self, name: str, found: Attribution, count: int) -> list[list[Mapping[str, Any]]]:
        if found.scores is None:
            return [[{"technique": name}] for _ in range(count)]
        scores, names = found.scores.tolist(), found.names
        targets = [[None] * len(row) for row in scores] if found.target is None else found.target.tolist()
        return [
            [
                {
                    "technique": name,
                    "column": column,
                    "target": target,
                    "label": names[row][column] if target is None else class_names.titles(self.labels, [target])[0],
                    "score": score,
                }
                for column, (target, score) in enumerate(zip(targets[row], scores[row], strict=True))
            ]
            for row in range(count)
        ]

    def _target_text(self) -> str:
        if self.target is None:
            return "the prediction, or the class in the list"
        score = score_of(self.target, Technique.default_score)
        text, tensors = score_text(score)
        functions = fingerprint.of_score(score)
        return " ".join(filter(None, (text, fingerprint.of_tensors(tensors) if tensors else "", functions)))


def execution_text(execution: Execution) -> dict[str, str]:
    """The fields on which results depend, where they are not what they are by default."""
    return {
        name: str(value)
        for name, value in sorted(vars(execution).items())
        if name not in _ANYWHERE and value != getattr(Execution(), name)
    }


def asked_of(target: Asked, batch: Batch) -> Asked:
    """The target of a batch: the class of each item where the list names it; one row of classes for every item."""
    score = target if isinstance(target, ClassScore) else None
    if score is None and (isinstance(target, Score) or callable(target)):
        return target
    named: Any = target if score is None else score.target
    if named is None and batch.targets is not None:
        named = list(batch.targets)
    elif isinstance(named, list | tuple | Tensor):
        rows = targets.integers(named)
        named = rows.expand(len(batch), -1) if rows.ndim == 2 and len(rows) == 1 else rows
    return named if score is None else replace(score, target=named)


def answers(work: Explaining, inputs: Tensor, target: Asked) -> dict[str, Attribution]:
    """One answer per technique; several share forwards and gradients where the backend can."""
    asked = target if any(technique.needs_target for technique in work.techniques.values()) else None
    options: dict[str, Any] = {"backend": work.backend, "target": asked, "execution": work.execution}
    if len(work.techniques) > 1:
        return explain_many(work.model, inputs, work.techniques, **options)
    ((name, technique),) = work.techniques.items()
    return {name: explain(work.model, inputs, technique, **options)}


def chosen(found: Attribution, rows: Sequence[int], count: int) -> Attribution:
    """The answer of some of its examples.

    Args:
        found: Of ``count`` examples.
        rows: Which are wanted.
        count: How many there are.
    """
    if list(rows) == list(range(count)):
        return found

    def cut(tensor: Tensor) -> Tensor:
        has_rows = tensor.ndim > 0 and len(tensor) == count
        return tensor[torch.tensor(rows, device=tensor.device)] if has_rows else tensor

    def each(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: cut(tensor) for name, tensor in tensors.items()}

    score = found.score
    if score is not None:
        held = {name: getattr(score, name) for name in score.per_example}
        score = score.having(
            **{name: cut(tensor) for name, tensor in held.items() if isinstance(tensor, Tensor) and len(tensor) > 1}
        )
    return replace(
        found,
        maps=each(found.maps),
        raw=each(found.raw),
        target=None if found.target is None else cut(found.target),
        scores=None if found.scores is None else cut(found.scores),
        extras=each(found.extras),
        score=score,
        provenance={key: note for key, note in found.provenance.items() if key != _BLANK},
    )


def restored(header: Mapping[str, str], tensors: Mapping[str, Tensor], place: object) -> Attribution:
    """An answer of a part, all of its rows.

    Raises:
        OutputError: It is none, or no installed distribution knows its technique.
    """
    try:
        kind = registry.technique(header["technique"])
    except UnknownAttributorError as error:
        raise OutputError(f"{place}: no installed distribution brings {header['technique']!r}") from error
    return Attribution.unpacked(header, tensors, kind, place=place)


def answers_of(
    record: Mapping[str, Any], tensors: Mapping[str, Tensor], place: object
) -> list[dict[str, tuple[Attribution, int]]]:
    """Per part of a shard the answers by technique, and how many rows they have.

    Raises:
        OutputError: One is none, or no installed distribution knows its technique.
    """
    counts = [0] * len(record["parts"])
    for each in record["items"]:
        if each["part"] is not None:
            counts[each["part"]] += 1
    found = []
    for number, part in enumerate(record["parts"]):
        answers = {}
        for name, header in part["answers"].items():
            start = f"{number}/{name}/"
            held = {key.removeprefix(start): tensor for key, tensor in tensors.items() if key.startswith(start)}
            answers[name] = restored(header, held, place), counts[number]
        found.append(answers)
    return found


def _technique_settings(technique: Technique) -> dict[str, str]:
    try:
        text, tensors = technique_text(technique)
    except OutputError as error:
        raise InputError(f"{technique.name}: {error}; a run keeps its settings in a file") from error
    return {"name": technique.name, "parameters": text, "tensors": fingerprint.of_tensors(tensors) if tensors else ""}


def check_target(target: Asked, technique: Technique) -> None:
    """Refuse a target that no batch can have.

    Raises:
        TargetError: It has a value for each of several examples.
    """
    score = score_of(target, technique.default_score)
    for name in score.per_example:
        held = getattr(score, name)
        if isinstance(held, Tensor) and held.ndim and len(held) > 1:
            raise TargetError(
                f"{type(score).__name__}.{name} has {len(held)} rows; a run asks the same of every item: give one row"
            )
