"""Which number is scored: the one that the maps explain."""

from collections.abc import Mapping

from torch import Tensor

from attribution.errors import InputError
from attribution.result import Attribution
from attribution.scores.classes import ClassScore
from attribution.scores.reading import Asked
from attribution.scores.score import Score


def explained_by(maps: Mapping[str, Attribution | Tensor]) -> Score | None:
    """The score that attributions explain; ``None`` where there are only tensors, or maps that explain none.

    Classes that were explained by their logits are left open, so that they are scored as a metric does by default.

    Raises:
        InputError: Two attributions explain different targets.
    """
    found: dict[str, Score] = {}
    for name, given in maps.items():
        if isinstance(given, Attribution) and given.score is not None:
            found[name] = _open(given.score)
    names = list(found)
    for other in names[1:]:
        if found[other] != found[names[0]]:
            raise InputError(
                f"{names[0]!r} and {other!r} explain different targets; explain one, or score them in two calls"
            )
    return found[names[0]] if names else None


def reading(score: Score, asked: Asked) -> Score:
    """A settled score, with classes read as the user asked: left open where nothing was said."""
    if not isinstance(score, ClassScore):
        return score
    return score.having(of=asked.of if isinstance(asked, ClassScore) else None)


def _open(score: Score) -> Score:
    return score.having(of=None) if isinstance(score, ClassScore) and score.of in ("logit", "probability") else score
