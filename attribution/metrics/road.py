"""``ROAD``: removal with imputed places, at stated parts of the cells."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from attribution.metrics.curves import Curves, parts
from attribution.metrics.faithfulness import Reading, RemovalMetric
from attribution.metrics.metric import Better

PERCENTILES = tuple(k / 10 for k in range(1, 10))


@dataclass(frozen=True, kw_only=True)
class Imputed(RemovalMetric):
    """A mean over curves of imputed photos.

    Args:
        removed: Parts of the cells, rising, above 0 and below 1; at least one cell is left.
        cells: As of `RemovalMetric`.

    Raises:
        InputError: A field is out of range. When run: the inputs are no images.
    """

    removed: tuple[float, ...] = PERCENTILES

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "removed", parts(type(self).__name__, "removed", self.removed, most=0.999))

    @property
    def reading(self) -> Reading:
        """Imputed, at these parts."""
        return ("removed", self.removed), ("cells", self.cells), ("baselines", ("linear",))

    def told(self, curves: Curves) -> Mapping[str, Tensor]:
        """(N, T)."""
        return {"": self.of(_mean(curves.least), _mean(curves.most))}

    @abstractmethod
    def of(self, least: Tensor, most: Tensor) -> Tensor:
        """(N, T), of LeRF and MoRF."""


class ROAD(Imputed):
    """(LeRF − MoRF) / 2: the mean score with the least important cells imputed − with the most important ones, halved.

    Removed places are imputed from what is left (`imputation.impute`), so that they show neither an edge nor the form
    of what was there; noise of 1 % of max x − min x of the photo is added to them. Unit: the score's. Range of a
    probability: −½ to ½; a random map has 0 on average. A linear system is solved for each forward. Images only.

    Args:
        removed: Parts of the cells, rising, above 0 and below 1; at least one cell is left.
        cells: As of `RemovalMetric`.

    Raises:
        InputError: A field is out of range. When run: the inputs are no images (N, C, H, W).

    Source: Y. Rong et al., *A Consistent and Efficient Evaluation Strategy for Attribution Methods*, ICML 2022. The
    combination is that of pytorch-grad-cam's ``ROADCombined``. Departs from both: cells are removed where they remove
    pixels; the noise goes by the range of the photo, is drawn once for a photo, and is seeded.
    """

    name: ClassVar[str] = "road"
    better: ClassVar[Better] = "higher"

    def of(self, least: Tensor, most: Tensor) -> Tensor:
        """Both, combined."""
        return (least - most) / 2


class ROADMoRF(Imputed):
    """The mean score with the most important cells imputed, of which what any imputation costs does not cancel.

    Unit, arguments, errors and source: as `ROAD`.
    """

    name: ClassVar[str] = "road_morf"
    better: ClassVar[Better] = "lower"

    def of(self, least: Tensor, most: Tensor) -> Tensor:
        """MoRF."""
        return most


class ROADLeRF(Imputed):
    """The mean score with the least important cells imputed. Unit, arguments, errors and source: as `ROAD`."""

    name: ClassVar[str] = "road_lerf"
    better: ClassVar[Better] = "higher"

    def of(self, least: Tensor, most: Tensor) -> Tensor:
        """LeRF."""
        return least


def _mean(curve: Tensor) -> Tensor:
    """(N, T, 1, P + 1) → (N, T): over the points but the first, at which nothing is removed."""
    return curve[..., 0, 1:].mean(dim=-1)
