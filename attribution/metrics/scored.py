"""``Scored``: what is said of some photos."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from attribution.metrics.curves import Curves
from attribution.metrics.rows import CurveRow, Row


@dataclass(frozen=True, eq=False)
class Scored:
    """What is said of N photos.

    Attributes:
        rows: Values of metrics.
        curves: By map: those that the first metric of removal reads; empty where there is none.
        maps: By map: what was ordered, (N, T, *cells) or (N, 1, *cells).
        labels: (N, T), names of targets.
        costs: Seconds of each contestant and photo.
    """

    rows: list[Row]
    curves: Mapping[str, Curves]
    maps: Mapping[str, Tensor]
    labels: Sequence[Sequence[str]]
    costs: list[Row]

    def points(self, n: int, photo: str) -> Iterator[CurveRow]:
        """The curves of one photo.

        Args:
            n: Which of them.
            photo: Its name.
        """
        for name, each in self.curves.items():
            curve = Points(name, each.baselines, each.removed.tolist(), each.most[n], each.least[n])
            yield from curve.rows(photo, self.labels[n])


@dataclass(frozen=True, eq=False)
class Points:
    """The curves of one map and photo.

    Attributes:
        map: Its name.
        baselines: B names.
        removed: (S + 1), parts of the cells.
        most: (T, B, S + 1).
        least: Likewise.
    """

    map: str
    baselines: Sequence[str]
    removed: Sequence[float]
    most: Tensor
    least: Tensor

    def rows(self, photo: str, labels: Sequence[str]) -> Iterator[CurveRow]:
        """Point by point.

        Args:
            photo: Its name.
            labels: Of T targets.
        """
        for t, label in enumerate(labels):
            for b, baseline in enumerate(self.baselines):
                most, least = self.most[t, b].tolist(), self.least[t, b].tolist()
                for point in zip(self.removed, most, least, strict=True):
                    yield CurveRow(photo, label, self.map, baseline, *point)
