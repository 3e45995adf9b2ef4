"""Scores in files: their fields as JSON, their tensors beside it, functions by name."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Self

from torch import Tensor

from attribution.errors import TargetError
from attribution.scores.boxes import BoxScore
from attribution.scores.classes import ClassScore
from attribution.scores.difference import DifferenceScore
from attribution.scores.finer import FinerScore
from attribution.scores.functions import called
from attribution.scores.layers import LayerScore
from attribution.scores.regions import RegionScore
from attribution.scores.score import Output, Score
from attribution.scores.similarity import SimilarityScore
from attribution.scores.values import ValueScore

_KNOWN: dict[str, type[Score]] = {
    cls.__name__: cls
    for cls in (BoxScore, ClassScore, DifferenceScore, FinerScore, LayerScore, RegionScore, SimilarityScore, ValueScore)
}


@dataclass(frozen=True, eq=False)
class NamedScore(Score):
    """A score of which a file kept the name alone: a function, or a score of a class that is not built in.

    Args:
        name: In figures and reports.
    """

    name: str

    def check(self, examples: int) -> Self:
        """Cannot be asked.

        Raises:
            TargetError: Always.
        """
        raise self._lost()

    def values(self, output: Output, examples: Tensor) -> Tensor:
        """Cannot be computed.

        Raises:
            TargetError: Always.
        """
        raise self._lost()

    def _lost(self) -> TargetError:
        return TargetError(
            f"the score {self.name!r} was read from a file, which keeps only the name of a function or of a score that "
            "is not built in; give it again"
        )

    def __str__(self) -> str:
        return self.name


def stored(score: Score, prefix: str = "score") -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What JSON holds of a score, and its tensors by their names in a file."""
    if _KNOWN.get(type(score).__name__) is not type(score):
        return {"type": "NamedScore", "fields": {"name": str(score)}}, {}
    assert is_dataclass(score)
    held: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    for field in (each for each in fields(score) if each.init):
        value, name = getattr(score, field.name), f"{prefix}/{field.name}"
        if isinstance(value, Tensor):
            tensors[name] = value
            held[field.name] = {"tensor": name}
        elif isinstance(value, Score):
            inner, more = stored(value, name)
            held[field.name] = {"score": inner}
            tensors |= more
        elif callable(value):
            held[field.name] = {"function": called(value)}
        else:
            held[field.name] = list(value) if isinstance(value, tuple) else value
    return {"type": type(score).__name__, "fields": held}, tensors


def restored(found: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Score:
    """The score of a file.

    Raises:
        KeyError, TypeError, AttributionError: The file holds none.
    """
    given = dict[str, Any]()
    for name, value in found["fields"].items():
        if isinstance(value, dict) and "tensor" in value:
            given[name] = tensors[value["tensor"]]
        elif isinstance(value, dict) and "score" in value:
            given[name] = restored(value["score"], tensors)
        elif isinstance(value, dict) and "function" in value:
            given[name] = Forgotten(value["function"])
        else:
            given[name] = tuple(value) if isinstance(value, list) else value
    return (_KNOWN | {"NamedScore": NamedScore})[found["type"]](**given)


class Forgotten:
    """A function of which only the name is known; equal to others of the name.

    Args:
        name: Its own.
    """

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Forgotten) and self.__name__ == other.__name__

    def __hash__(self) -> int:
        return hash(self.__name__)

    def __call__(self, *args: object) -> Any:
        """Cannot be called.

        Raises:
            TargetError: Always.
        """
        raise TargetError(f"the function {self.__name__!r} was not saved with the file; give it again: output=…")
