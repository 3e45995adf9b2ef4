"""``Table``: the rows of an evaluation, their means with intervals, and what can be said of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from attribution.errors import InputError, nearest
from attribution.metrics import rows as rows_
from attribution.metrics.metric import Better
from attribution.metrics.rows import FORWARDS, SECONDS, CurveRow, Row
from attribution.metrics.statistics import Array, Interval, Versus, intervals, versus

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Table:
    """Scores of every photo.

    A photo's several targets are averaged first: photos are what is drawn, so that photos are what intervals are over.

    Attributes:
        rows: One value each, also as CSV.
        curves: Points of the curves of removal.
        contestants: Techniques, and maps from elsewhere, by name.
        better: By metric, whether higher or lower is better; the first one is the headline.
        title: Of the figure.
        seed: Of the resampling.
    """

    rows: Sequence[Row]
    curves: Sequence[CurveRow]
    contestants: tuple[str, ...]
    better: Mapping[str, Better]
    title: str = ""
    seed: int = 0
    _found: dict[tuple[str, str], dict[str, dict[str, float]]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        sums: dict[tuple[str, str], dict[str, dict[str, list[float]]]] = {}
        for row in self.rows:
            photos = sums.setdefault((row.metric, row.variant), {}).setdefault(row.map, {})
            photos.setdefault(row.photo, []).append(row.value)
        for key, maps in sums.items():
            self._found[key] = {
                name: {photo: sum(values) / len(values) for photo, values in photos.items()}
                for name, photos in maps.items()
            }

    @property
    def photos(self) -> list[str]:
        """Their names."""
        return list(dict.fromkeys(row.photo for row in self.rows))

    @property
    def maps(self) -> list[str]:
        """Contestants, then controls."""
        found = dict.fromkeys(row.map for row in self.rows)
        return [*(name for name in found if name in self.contestants), *self.controls]

    @property
    def controls(self) -> list[str]:
        """The maps that know nothing of the model."""
        return [name for name in dict.fromkeys(row.map for row in self.rows) if name not in self.contestants]

    @property
    def headline(self) -> str:
        """The first metric."""
        return next(iter(self.better))

    def variants(self, metric: str) -> list[str]:
        """Of a metric: baselines, depths, backends.

        Raises:
            InputError: Nothing was measured by this metric.
        """
        found = [variant for name, variant in self._found if name == metric]
        if not found:
            known = dict.fromkeys(name for name, _ in self._found)
            raise InputError(f"the table has no metric {metric!r}{nearest(metric, known)}; it has {', '.join(known)}")
        return found

    def values(self, metric: str, variant: str | None = None) -> dict[str, Array]:
        """By map, one number per photo, in one order: of the photos that every map has.

        Args:
            metric: By name.
            variant: ``None``: each photo's mean over all variants.

        Raises:
            InputError: There is no such metric or variant.
        """
        variants = self.variants(metric)
        if variant is not None and variant not in variants:
            raise InputError(f"{metric} has no variant {variant!r}; it has {', '.join(map(repr, variants))}")
        chosen = [self._found[metric, each] for each in (variants if variant is None else [variant])]
        maps = [name for name in self.maps if all(name in each for each in chosen)]
        photos = self.photos_of(metric, variant)
        return {name: np.mean([[each[name][photo] for photo in photos] for each in chosen], axis=0) for name in maps}

    def photos_of(self, metric: str, variant: str | None = None) -> list[str]:
        """The photos that `values` are of, in their order; the arguments are the same."""
        variants = self.variants(metric) if variant is None else [variant]
        chosen = [self._found[metric, each] for each in variants]
        maps = [name for name in self.maps if all(name in each for each in chosen)]
        return [photo for photo in self.photos if all(photo in each[name] for each in chosen for name in maps)]

    def means(self, metric: str, variant: str | None = None) -> dict[str, Interval]:
        """By map, the mean over photos with its interval; all maps see the same resampled photos."""
        values = self.values(metric, variant)
        if not values:
            return {}
        return dict(zip(values, intervals(np.stack([*values.values()], axis=1), seed=self.seed), strict=True))

    def versus(self, first: str, second: str, metric: str | None = None, variant: str | None = None) -> Versus:
        """One map against another, photo by photo.

        Args:
            first: A map.
            second: Another.
            metric: ``None``: the headline.
            variant: ``None``: each photo's mean over all variants.

        Raises:
            InputError: There is no such map, metric or variant.
        """
        metric = self.headline if metric is None else metric
        values = self.values(metric, variant)
        for name in (first, second):
            if name not in values:
                raise InputError(f"{metric} was not measured of {name!r}{nearest(name, values)}")
        higher = self.better[metric] == "higher"
        return versus((first, second), values[first], values[second], higher=higher, seed=self.seed)

    def ranking(self, metric: str | None = None, variant: str | None = None) -> list[str]:
        """The maps, the best mean first."""
        metric = self.headline if metric is None else metric
        sign = -1 if self.better[metric] == "higher" else 1
        means = {name: float(each.mean()) for name, each in self.values(metric, variant).items()}
        return sorted(means, key=lambda name: sign * means[name])

    def seconds(self) -> dict[str, float]:
        """By contestant, the median time for a photo's map."""
        maps = self._found.get((SECONDS, ""), {})
        return {name: float(np.median([*photos.values()])) for name, photos in maps.items()}

    def forwards(self) -> dict[str, float]:
        """By technique, the work for one photo's map: multiply-adds, backward passes too, per those of one forward."""
        maps = self._found.get((FORWARDS, ""), {})
        return {name: float(np.median([*photos.values()])) for name, photos in maps.items()}

    def extremes(self, name: str, count: int = 3) -> tuple[list[str], list[str]]:
        """The photos of which a map has the best and the worst values of the headline, at most half of them each.

        Args:
            name: A map.
            count: Photos of each.

        Raises:
            InputError: There is no such map.
        """
        values = self.values(self.headline)
        if name not in values:
            raise InputError(f"{self.headline} was not measured of {name!r}{nearest(name, values)}")
        sign = -1 if self.better[self.headline] == "higher" else 1
        photos = self.photos_of(self.headline)
        order = [photos[k] for k in np.argsort(sign * values[name], kind="stable")]
        count = min(count, len(order) // 2)
        return order[:count], order[::-1][:count]

    def text(self) -> str:
        """The table in Markdown, and below it the sentences of `verdicts`."""
        from attribution.metrics.verdicts import text

        return text(self)

    def verdicts(self) -> list[str]:
        """A sentence for each contestant and each pair of neighbours in the ranking, and how stable the ranking is."""
        from attribution.metrics.verdicts import verdicts

        return verdicts(self)

    def figure(self) -> "Figure":
        """The mean curves of removal with bands of 95 %, a line per baseline.

        Raises:
            InputError: No metric of removal was asked.
        """
        from attribution.metrics.drawing import curves_figure

        return curves_figure(self)

    def save(self, folder: str | Path) -> list[Path]:
        """Write a line for each photo, the table and the figure into a folder that exists.

        These are ``scores.csv``, ``costs.csv``, ``curves.csv``, ``table.md``, ``curves.png``, and the three tables as
        ``.parquet`` too where pyarrow is installed (extra ``lightning``).

        Raises:
            OutputError: It cannot be written.
        """
        from attribution.metrics.writing import write

        return write(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path, contestants: Sequence[str], better: Mapping[str, Better]) -> Self:
        """From the CSV files of `save`.

        Raises:
            OutputError: They are missing or of another form.
        """
        path = Path(folder)
        scores, costs = (rows_.read(path / f"{name}.csv", Row) for name in ("scores", "costs"))
        curves = rows_.read(path / "curves.csv", CurveRow)
        return cls([*costs, *scores], curves, tuple(contestants), dict(better))

    def __str__(self) -> str:
        return self.text()
