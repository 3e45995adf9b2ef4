"""SRG, insertion and deletion: areas under the curves of `removal_curves`."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attribution.metrics.curves import MOST_CELLS, Curves, removal_curves
from attribution.metrics.metric import Better, Case, Metric
from attribution.techniques.parameters import integer


@dataclass(frozen=True, kw_only=True)
class RemovalMetric(Metric):
    """An area under curves of removal; several of them read the same curves.

    Args:
        steps: Of a curve, at least 2.
        cells: Along an axis of a map; finer maps are pooled. ``None``: each map as it is.

    Raises:
        InputError: A field is out of range.
    """

    steps: int = 16
    cells: int | None = MOST_CELLS

    def __post_init__(self) -> None:
        own = type(self).__name__
        object.__setattr__(self, "steps", integer(own, "steps", self.steps, least=2))
        if self.cells is not None:
            object.__setattr__(self, "cells", integer(own, "cells", self.cells, least=1))

    @abstractmethod
    def of(self, curves: Curves) -> Tensor:
        """(N, T, B)."""

    def measure(self, case: Case) -> Mapping[str, Tensor]:
        """By baseline: mean, blur and noise. `evaluate` takes other baselines, and one pass for many maps."""
        found = removal_curves(
            case.model,
            case.inputs,
            {"map": case.given},
            target=case.target,
            steps=self.steps,
            cells=self.cells,
            seed=case.seed,
            first=case.first,
            execution=case.execution,
        )
        (curves,) = found.values()
        return dict(zip(curves.baselines, self.of(curves).unbind(2), strict=True))


@dataclass(frozen=True, kw_only=True)
class SRG(RemovalMetric):
    """Symmetric relevance gain: the area with the least important cells removed first − with the most important first.

    Unit: the score's. Range of a probability: −1 to 1; a random map has 0 on average, whatever the baseline.

    Source: S. Blücher, J. Vielhaben, N. Strodthoff, *Decoupling Pixel Flipping and Occlusion Strategy for Consistent
    XAI Benchmarks*, TMLR 2024, section 3. Departs from the paper: it removes superpixels, and cells here.
    """

    name: ClassVar[str] = "srg"
    better: ClassVar[Better] = "higher"

    def of(self, curves: Curves) -> Tensor:
        """``curves.srg``."""
        return curves.srg


@dataclass(frozen=True, kw_only=True)
class Insertion(RemovalMetric):
    """The area under the score while cells are put into the baseline, the most important first. Unit: the score's.

    Source: V. Petsiuk, A. Das, K. Saenko, *RISE*, BMVC 2018, section 4.3. Departs from the paper: any baseline, where
    the paper takes the blurred photo; cells where it takes pixels.
    """

    name: ClassVar[str] = "insertion"
    better: ClassVar[Better] = "higher"

    def of(self, curves: Curves) -> Tensor:
        """``curves.insertion``."""
        return curves.insertion


@dataclass(frozen=True, kw_only=True)
class Deletion(RemovalMetric):
    """The area under the score while cells are removed, the most important first. Unit: the score's.

    A low value may also come of cells that look odd when they are removed; take `SRG`, of which that part cancels.

    Source: as `Insertion`.
    """

    name: ClassVar[str] = "deletion"
    better: ClassVar[Better] = "lower"

    def of(self, curves: Curves) -> Tensor:
        """``curves.deletion``."""
        return curves.deletion
