"""What rounding may do to maps with kinks: move a rectifier across its own, and with it a few values by a lot.

The gradient of a ReLU or of a max-pool jumps where its argument changes sign. Of thousands of units some lie so near to
that place that rounding decides on which side they are. Each of them moves the part of a map that it sees, by as much
as it has to say, however small the rounding was. So the largest error of a right map is a matter of luck: it may be 1 %
of the map, and is no multiple of what another rounded run has. Most values of a map are not touched by it.
"""

from collections.abc import Sequence
from math import inf, isfinite

import torch
from torch import Tensor

from attribution.agreement import agree
from attribution.comparison.judgement import SHARP, Judgement, largest
from attribution.errors import InputError
from attribution.technique import Technique
from attribution.techniques import ElementWiseCAM, GradCAMPlusPlus, HiResCAM, LayerCAM, XGradCAM
from attribution.techniques.gradient.family import AveragedGradient

KICK = 16.0
"""By how many eps(dtype) models are shaken, so that they cross every kink that rounding may cross."""

TAIL = 2.0
"""How many times as large as theirs the largest error may be."""

_KINKED = (AveragedGradient, HiResCAM, ElementWiseCAM, LayerCAM, XGradCAM, GradCAMPlusPlus)


def kinked(technique: Technique) -> bool:
    """Whether its maps have the gradient of each place, and with it the kinks."""
    return isinstance(technique, _KINKED)


def judge(
    name: str, map_: Tensor, oracle: Tensor, beside: Sequence[Tensor], *, dtype: torch.dtype, plain: float | None = None
) -> Judgement:
    """Rounding or bug, by the median error and by the largest.

    Rounding, where both hold: median|map − oracle| ≤ max(median|m − oracle|, 16 · eps(dtype) · median|oracle|), and
    max|map − oracle| ≤ 2 · max(max|m − oracle|, 16 · eps(dtype) · max|oracle|); else a bug.

    The median tells of the formula, since a map that is wrong by a part of itself is wrong nearly everywhere, and jumps
    are not. It is taken over the places where one of the maps is not zero. The largest error tells of single places, as
    far as jumps let it.

    Args:
        name: What is judged.
        map_: In any dtype, on any device; another shape than the oracle's is a bug.
        oracle: The same of the model in float64.
        beside: The maps m: of models that were shaken by `KICK` and, of the same seed, by −`KICK`, so that a unit near
            its kink crosses it in one of the two.
        dtype: The coarsest on the way.
        plain: Instead of these, m is a rounded run that is known to be good, and the median may be so many times its
            own, or so many eps(dtype). It jumps at other places, so that the largest error is not judged.

    Raises:
        InputError: A map that stands beside has another shape than the oracle, or NaN.
    """
    pair = agree(name, map_, oracle, relative=0.0)
    marks = [agree(f"{name}, beside it", other, oracle, relative=0.0).difference for other in beside]
    if not all(map(isfinite, marks)):
        raise InputError(f"{name}, beside it: off by {max(marks)}; give finite answers to the same question")
    exact, *others = (each.detach().to("cpu", torch.float64) for each in (oracle, *beside))
    found = map_.detach().to("cpu", torch.float64) if map_.shape == oracle.shape else exact
    places = torch.stack([each != 0 for each in (exact, found, *others)]).any(dim=0)
    middles = [_median((each - exact)[places]) for each in (found, exact * 2, *others)]
    typical, size, *typically = middles
    eps = torch.finfo(dtype).eps * (KICK if plain is None else 1.0)
    typical_allowed = (plain or 1.0) * max(eps * size, *typically, 0.0)
    allowed = TAIL * max(eps * largest(exact), *marks, 0.0) if plain is None else inf
    near = isfinite(pair.difference) and pair.difference <= allowed and typical <= typical_allowed
    return Judgement(
        pair.name,
        pair.difference,
        largest(exact),
        allowed,
        "rounding" if near else "bug",
        0 < size >= SHARP * typical_allowed,
        typical,
        typical_allowed,
    )


def _median(values: Tensor) -> float:
    return float(values.abs().median()) if values.numel() else 0.0
