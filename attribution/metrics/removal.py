"""``Removal``: the question which score is left when cells are removed in the order of a map."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import floor
from typing import Any, ClassVar, Literal, Self

from torch import nn

from attribution.inputs.inputs import Inputs
from attribution.metrics import baselines
from attribution.metrics.cells import CellMap, cell_maps
from attribution.scores.classes import ClassScore
from attribution.technique import Kind, Maps, Technique

Points = int | tuple[float, ...]
"""How far cells are removed: in so many equal steps, or to these parts of all cells."""


def counts(cells: int, points: Points) -> list[int]:
    """How many of so many cells are removed, none at first; fractions go to the nearest number, halves up.

    With fewer cells than steps each cell is a step. A part below 1 leaves at least one cell.
    """
    if isinstance(points, int):
        steps = min(points, cells)
        return [(2 * k * cells + steps) // (2 * steps) for k in range(steps + 1)]
    return [0, *(min(floor(part * cells + 0.5), cells if part == 1 else cells - 1) for part in points)]


@dataclass(frozen=True, kw_only=True)
class Removal(Technique):
    """map[n, t, b, order, k] = score of photo n and target t with the first cells of the order replaced by baseline b.

    A question to a model like any other, so that it is checked, isolated and split as `explain` does it. See
    `removal_curves`.
    """

    name: ClassVar[str] = "removal"
    kind: ClassVar[Kind] = "heatmap"
    needs_target: ClassVar[bool] = True
    default_score: ClassVar[ClassScore] = ClassScore(of="probability")
    batch_of: ClassVar[Literal["images", "windows", "filters"]] = "windows"
    compares_scores: ClassVar[bool] = False
    takes_gradients: ClassVar[bool] = False

    maps: Mapping[str, Any]
    baselines: Any
    points: Points
    cells: int | None
    seed: int
    first: int

    def check(self, inputs: Inputs) -> None:
        """The baselines fit, and the maps too."""
        baselines.named(self.baselines, inputs)
        self.cut(inputs)

    def cut(self, inputs: Inputs) -> dict[str, CellMap]:
        """The maps as cells."""
        found: dict[str, CellMap] = {}
        for name, given in self.maps.items():
            found |= {name: given} if isinstance(given, CellMap) else cell_maps(name, given, inputs, self.cells)
        return found

    def resolve(self, model: nn.Module, inputs: Inputs) -> Self:
        """With cells and named baselines."""
        return replace(self, maps=self.cut(inputs), baselines=baselines.named(self.baselines, inputs))

    def rows(self, part: slice, inputs: Inputs) -> Self:
        """Maps and baselines of some photos."""
        if part.start == 0 and part.stop >= len(inputs):
            return self
        own = {name: baselines.of_part(one, part, inputs) for name, one in self.baselines.items()}
        maps = {name: each[part] for name, each in self.maps.items()}
        return replace(self, maps=maps, baselines=own, first=self.first + part.start)

    def finish(self, raw: Maps, inputs: Inputs) -> Maps:
        """As they are."""
        return raw
