"""From ``--score region:12 --output out`` to a score."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attribution.cli.imports import folder_importable, named
from attribution.errors import InputError, TargetError, nearest
from attribution.scores.classes import ClassScore, Of
from attribution.scores.finer import FinerScore
from attribution.scores.functions import FunctionScore
from attribution.scores.layers import LayerScore
from attribution.scores.reading import Asked
from attribution.scores.regions import RegionScore
from attribution.scores.score import Score
from attribution.scores.targets import Target
from attribution.scores.values import ValueScore
from attribution.zoo.script import load_function

FORMS = (
    "value, value:INDEX, region:CHANNEL, logit, probability, log_probability, sigmoid, finer, "
    "finer:REFERENCES:STRENGTH:WEIGHTS, layer:NAME:CHANNEL, MODULE:FUNCTION or FILE.py:FUNCTION"
)
_OF: tuple[Of, ...] = ("logit", "probability", "log_probability", "sigmoid")
_WORDS = ("value", "region", "layer", "finer", *_OF)
_SHOWN = 60
_INDEX = re.compile(r"-?\d{1,9}")
_FINER = "finer:REFERENCES:STRENGTH:WEIGHTS, such as finer:3, or finer:281,282:1:softmax"


@dataclass(frozen=True)
class TypedScore:
    """What ``--score`` and ``--output`` say, before the classes of ``--target`` are known.

    Attributes:
        score: Of a number that is not a class, or of a class still to be named; ``None``: classes are explained.
        of: How classes are read.
        output: Where in the output they stand.
    """

    score: Score | None = None
    of: Of | None = None
    output: str | None = None

    def asked(self, target: Target) -> Asked:
        """What `explain` is given."""
        if isinstance(self.score, FinerScore):
            return replace(self.score, target=ClassScore(target, of="logit", output=self.output))
        if self.score is not None:
            return self.score
        if self.of is None and self.output is None:
            return target
        return ClassScore(target, of=self.of, output=self.output)


def parse(score: str | None, output: str | None, *, targets: bool) -> TypedScore:
    """Understand ``--score`` and ``--output``.

    Args:
        score: As typed.
        output: Likewise.
        targets: Whether classes are named by ``--target``.

    Raises:
        TargetError: It is none of the forms, or goes with something that was also typed.
        InputError: The module or file of a function cannot be loaded, or has none of that name.
    """
    if output is not None and not output.strip():
        raise TargetError("--output is empty; give a key, an index, or a path such as heads.1")
    if score is None or score in _OF:
        return TypedScore(of=next((of for of in _OF if of == score), None), output=output)
    if score.partition(":")[0] == "finer":
        return TypedScore(score=_finer(score), output=output)
    found = _score(score)
    if targets:
        raise TargetError(f"--score {score} explains no class; leave --target out")
    if output is not None:
        if not isinstance(found, RegionScore | ValueScore):
            raise TargetError(f"--score {score} does not read one tensor of the output; leave --output out")
        found = replace(found, output=output)
    return TypedScore(score=found)


def _score(text: str) -> Score:
    word, colon, rest = text.partition(":")
    if word == "value":
        return ValueScore(_indices(text, rest) if colon else None)
    if word == "region":
        return RegionScore(_index(text, rest, "region:CHANNEL, such as region:12"))
    if word == "layer":
        layer, second, channel = rest.rpartition(":")
        if not second or not layer:
            raise TargetError(
                f"--score {_cut(text)} names no channel; write layer:NAME:CHANNEL, such as layer:features.12:7"
            )
        return LayerScore(layer, _index(text, channel, "layer:NAME:CHANNEL, such as layer:features.12:7"))
    place, last, function = text.rpartition(":")
    if not last or not place or not function:
        raise TargetError(f"no score {_cut(text)}{nearest(text, _WORDS)}; give {FORMS}")
    return FunctionScore(_function(place, function, text))


def _finer(text: str) -> FinerScore:
    """Of a class that is still to be named; ``281,`` is one class, ``3`` a number of classes."""
    typed, given = text.split(":")[1:], dict[str, Any]()
    if len(typed) > 3 or not all(typed):
        raise TargetError(f"--score {_cut(text)}: write {_FINER}")
    for name, word in zip(("references", "strength", "weights"), typed, strict=False):
        given[name] = word
    if typed:
        classes = typed[0].removesuffix(",").split(",")
        indices = [_index(text, each.strip(), _FINER) for each in classes]
        given["references"] = indices if "," in typed[0] else indices[0]
    if len(typed) > 1:
        try:
            given["strength"] = float(typed[1])
        except ValueError:
            raise TargetError(f"--score {_cut(text)}: {_cut(typed[1])} is no number; write {_FINER}") from None
    return FinerScore(**given)


def _function(place: str, function: str, text: str) -> Callable[..., Any]:
    if place.endswith(".py"):
        return load_function(Path(place), function)
    with folder_importable():
        found, known = named(place, function, text)
    if not callable(found):
        raise InputError(f"{place} has no function {function!r}{nearest(function, known)}")
    return found  # type: ignore[no-any-return]


def _index(text: str, typed: str, form: str) -> int:
    if not _INDEX.fullmatch(typed) or typed.startswith("-"):
        raise TargetError(f"--score {_cut(text)}: {_cut(typed)} is no index; write {form}")
    return int(typed)


def _indices(text: str, typed: str) -> int | tuple[int, ...]:
    parts = [part.strip() for part in typed.split(",")]
    if not all(_INDEX.fullmatch(part) for part in parts):
        raise TargetError(
            f"--score {_cut(text)}: {_cut(typed)} is no index; write value:3, or value:1,3 for several axes"
        )
    return int(parts[0]) if len(parts) == 1 else tuple(map(int, parts))


def _cut(typed: str) -> str:
    return repr(typed if len(typed) <= _SHOWN else f"{typed[:_SHOWN]}…")
