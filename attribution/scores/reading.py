"""From what a user may give as ``target=`` to a score."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from attribution.scores.classes import ClassScore
from attribution.scores.functions import FunctionScore
from attribution.scores.score import Score
from attribution.scores.targets import Target

Asked = Target | Score | Callable[..., Tensor]
"""Classes (see `Target`), a score, or a function of the model's output."""


def score_of(asked: Any, default: ClassScore) -> Score:
    """The score that is asked for.

    Args:
        asked: See `Asked`.
        default: Of the technique: what classes are explained by where nothing is said.

    Raises:
        TargetError: It is none of these.
    """
    if isinstance(asked, Score):
        return asked.by_default(default)
    if callable(asked) and not isinstance(asked, Tensor | type):
        return FunctionScore(asked)
    return replace(default, target=asked)
