"""``Curves``: how the score falls while cells are removed, and the areas under it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from attribution import numbers
from attribution.errors import InputError
from attribution.metrics.baselines import Baselines
from attribution.metrics.removal import Points, Removal, counts
from attribution.metrics.remover import Remover
from attribution.metrics.settled import explained_by
from attribution.result import Attribution
from attribution.running.execution import Execution
from attribution.scores.reading import Asked
from attribution.techniques.parameters import integer

MOST_CELLS = 28
"""Cells along an axis; a finer map is pooled, since single pixels are removed by steps that no model was trained on."""


@dataclass(frozen=True, eq=False)
class Curves:
    """The score of one map's photos while its cells are replaced by a baseline, in either order.

    Attributes:
        removed: (S + 1,), the part of the cells that is removed: from 0 to 1, or as it was asked for.
        most: (N, T, B, S + 1), the score with the most important cells removed first.
        least: The same with the least important ones removed first.
        baselines: B names.
    """

    removed: Tensor
    most: Tensor
    least: Tensor
    baselines: tuple[str, ...]

    @property
    def deletion(self) -> Tensor:
        """(N, T, B): the area under ``most``; lower is better."""
        return self._area(self.most)

    @property
    def insertion(self) -> Tensor:
        """(N, T, B): the area under ``least``; higher is better.

        Cells put into the baseline, the most important first, pass through the same images in reverse.
        """
        return self._area(self.least)

    @property
    def srg(self) -> Tensor:
        """(N, T, B): ``insertion`` − ``deletion``, the symmetric relevance gain; 0 on average for a random map."""
        return self.insertion - self.deletion

    def _area(self, curve: Tensor) -> Tensor:
        """By the trapezoid rule, in no less than float32."""
        wide = curve if curve.dtype == torch.float64 else curve.float()
        return torch.trapezoid(wide, self.removed.to(wide), dim=-1)


def removal_curves(
    model: nn.Module,
    inputs: Any,
    maps: Mapping[str, Attribution | Tensor],
    *,
    target: Asked = None,
    baselines: Baselines = None,
    steps: int = 16,
    removed: Sequence[float] | None = None,
    cells: int | None = MOST_CELLS,
    seed: int = 0,
    first: int = 0,
    execution: Execution = Execution(),
) -> dict[str, Curves]:
    """Remove cells in the order of each map, the most and the least important first, and note the score.

    Step k of S removes round(k · n / S) of a map's n cells; a map with fewer cells than ``steps`` takes n steps. Equal
    values are ordered by chance (see `ranking.ranks`). With m maps and B baselines a photo takes
    m · B · (2 S − 2) + 1 + B forwards: the whole photo and the whole baseline are shared. A map of each target counts
    as T maps; a map (N, 1, *cells) serves all targets.

    Args:
        model: As for `explain`; as found on every exit.
        inputs: As for `explain`.
        maps: By name: an `Attribution`, whoever computed it, or a tensor (N, T, *cells), (N, T, C, *cells) or
            (N, 1, *cells).
        target: What is scored, as for `explain`; classes by their probability where nothing else is said. ``None``:
            what the attributions explain; the predicted class where there are only tensors.
        baselines: What stands in place of cells: see `attribution.metrics.baselines`.
        steps: S, at least 2.
        removed: Parts of the cells, above 0, rising, at most 1: the points of the curves in place of equal steps.
        cells: Along an axis; finer maps are pooled. ``None``: each map as it is.
        seed: Of ties and of the baseline ``"noise"``.
        first: Place of the first photo in the data set, which random numbers go by.
        execution: ``batch_size`` counts changed images in a forward.

    Returns:
        By map; ``"NAME · LAYER"`` where an attribution has several.

    Raises:
        InputError: A map or a baseline does not fit; the maps explain different targets.
        NonFiniteError: A map, an input or a score is NaN or infinite.
        AttributionError: As `explain`.
    """
    asked = Removal(
        maps=dict(maps),
        baselines=baselines,
        points=_points(steps, removed),
        cells=None if cells is None else integer("removal_curves", "cells", cells, least=1),
        seed=integer("removal_curves", "seed", seed, least=0),
        first=integer("removal_curves", "first", first, least=0),
    )
    if not maps:
        raise InputError("there are no maps to score; give at least one by name")
    found = Remover(model, asked, execution).attribute(inputs, explained_by(maps) if target is None else target)
    settled: Any = found.technique
    names = tuple(settled.baselines)
    return {
        name: Curves(_fractions(settled.maps[name].count, settled.points), each[..., 0, :], each[..., 1, :], names)
        for name, each in found.maps.items()
    }


def _fractions(cells: int, points: Points) -> Tensor:
    return torch.tensor(counts(cells, points), dtype=torch.float64, device="cpu") / cells


def _points(steps: int, removed: Sequence[float] | None) -> Points:
    if removed is None:
        return integer("removal_curves", "steps", steps, least=2)
    return parts("removal_curves", "removed", removed)


def parts(owner: str, name: str, value: object, most: float = 1) -> tuple[float, ...]:
    """Rising numbers above 0, at most so large.

    Raises:
        InputError: They are something else.
    """
    several = numbers.items(value)
    found = tuple(number for number in map(numbers.real, several or ()) if number is not None)
    if (
        not found
        or len(found) < len(several or ())
        or not all(a < b for a, b in pairwise((0.0, *found)))
        or found[-1] > most
    ):
        raise InputError(f"{owner}.{name} is {value!r}; give rising parts of the cells, above 0 and at most {most}")
    return found
