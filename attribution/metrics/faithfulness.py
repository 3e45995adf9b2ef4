"""SRG, insertion and deletion: areas under the curves of `removal_curves`."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from attribution.metrics.curves import MOST_CELLS, Curves, removal_curves
from attribution.metrics.metric import Better, Case, Metric
from attribution.techniques.parameters import integer

Reading = tuple[tuple[str, object], ...]
"""Arguments of `removal_curves`; metrics with the same ones read the same curves."""


@dataclass(frozen=True, kw_only=True)
class RemovalMetric(Metric):
    """A number that curves of removal tell.

    Args:
        cells: Along an axis of a map; finer maps are pooled. ``None``: each map as it is.

    Raises:
        InputError: A field is out of range.
    """

    cells: int | None = MOST_CELLS

    def __post_init__(self) -> None:
        if self.cells is not None:
            object.__setattr__(self, "cells", integer(type(self).__name__, "cells", self.cells, least=1))

    @property
    @abstractmethod
    def reading(self) -> Reading:
        """Which curves."""

    @abstractmethod
    def told(self, curves: Curves) -> Mapping[str, Tensor]:
        """(N, T) by variant."""

    def measure(self, case: Case) -> Mapping[str, Tensor]:
        """Of one map. `evaluate` takes the baselines that it is given, and one pass for many maps."""
        asked: dict[str, Any] = dict(self.reading)
        found = removal_curves(
            case.model,
            case.inputs,
            {"map": case.given},
            target=case.target,
            seed=case.seed,
            first=case.first,
            execution=case.execution,
            **asked,
        )
        (curves,) = found.values()
        return self.told(curves)


@dataclass(frozen=True, kw_only=True)
class Area(RemovalMetric):
    """An area under the curves, by baseline.

    Args:
        steps: Of a curve, at least 2.
        cells: As of `RemovalMetric`.

    Raises:
        InputError: A field is out of range.
    """

    steps: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "steps", integer(type(self).__name__, "steps", self.steps, least=2))

    @property
    def reading(self) -> Reading:
        """Equal steps."""
        return ("steps", self.steps), ("cells", self.cells)

    @abstractmethod
    def of(self, curves: Curves) -> Tensor:
        """(N, T, B)."""

    def told(self, curves: Curves) -> Mapping[str, Tensor]:
        """(N, T) by baseline."""
        return dict(zip(curves.baselines, self.of(curves).unbind(2), strict=True))


@dataclass(frozen=True, kw_only=True)
class SRG(Area):
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
class Insertion(Area):
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
class Deletion(Area):
    """The area under the score while cells are removed, the most important first. Unit: the score's.

    A low value may also come of cells that look odd when they are removed; take `SRG`, of which that part cancels.

    Source: as `Insertion`.
    """

    name: ClassVar[str] = "deletion"
    better: ClassVar[Better] = "lower"

    def of(self, curves: Curves) -> Tensor:
        """``curves.deletion``."""
        return curves.deletion
