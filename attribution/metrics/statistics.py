"""What a sample of photos says of all photos: bootstrap intervals, paired differences, and Kendall's tau."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from statistics import NormalDist
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]

RESAMPLES = 10_000
LEVEL = 0.95
POWER = 0.8
"""The chance to see a difference with the photos that are said to be needed."""

_AT_ONCE = 2**22


FEWEST = 6
"""With fewer photos two maps are never told apart: a sign test could not do so if all photos agreed."""


@dataclass(frozen=True)
class Interval:
    """A mean over photos with an interval of 95 %; NaN where there is one photo.

    Attributes:
        mean: Over photos.
        low: End of the interval.
        high: Likewise.
        photos: How many.
    """

    mean: float
    low: float
    high: float
    photos: int

    def __str__(self) -> str:
        form = (
            ".3f" if abs(self.mean) >= 0.01 or (not np.isnan(self.low) and max(-self.low, self.high) >= 0.01) else ".1e"
        )
        if np.isnan(self.low):
            return f"{self.mean:{form}}"
        return f"{self.mean:{form}} ({self.low:{form}} to {self.high:{form}})"


def intervals(values: Array, *, seed: int = 0) -> list[Interval]:
    """Of each column of (photos, columns). All columns see the same resampled photos.

    The expanded percentile interval of the bootstrap: the tails are those of √(n / (n − 1)) · t(n − 1), without which
    the intervals of few photos are too short. T. Hesterberg, *What Teachers Should Know About the Bootstrap*, The
    American Statistician 69, 2015.
    """
    means = values.mean(axis=0)
    if len(values) < 2:
        return [Interval(float(mean), float("nan"), float("nan"), len(values)) for mean in means]
    drawn = np.concatenate([weights @ values for weights in _weights(len(values), seed)])
    tail = NormalDist().cdf(-((len(values) / (len(values) - 1)) ** 0.5) * student(len(values) - 1))
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return [Interval(float(m), float(a), float(b), len(values)) for m, a, b in zip(means, low, high, strict=True)]


@dataclass(frozen=True)
class Versus:
    """One map against another, photo by photo.

    Attributes:
        names: Of both.
        difference: Mean of first − second, positive where the first is better.
        share: Of photos where the first is better; equal scores count half.
        needed: Photos with which a difference of this size and spread is seen in four samples of five; ``None`` where
            there is none to see.
    """

    names: tuple[str, str]
    difference: Interval
    share: Interval
    needed: int | None

    @property
    def told_apart(self) -> bool:
        """Whether the interval of the difference excludes 0, and there are at least `FEWEST` photos."""
        return self.share.photos >= FEWEST and (self.difference.low > 0 or self.difference.high < 0)

    def __str__(self) -> str:
        first, second = self.names
        photos = self.share.photos
        if not self.told_apart:
            plural = "photo" if photos == 1 else "photos"
            text = f"{first} and {second} cannot be told apart with {photos} {plural}"
            return text if self.needed is None else f"{text}; about {max(self.needed, photos + 1)} would be needed"
        share = self.share
        if self.difference.mean < 0:
            first, second = second, first
            share = Interval(1 - share.mean, 1 - share.high, 1 - share.low, share.photos)
        part = f"{100 * share.mean:.0f} % of photos ({100 * share.low:.0f}–{100 * share.high:.0f})"
        return f"{first} beats {second} on {part}"


def versus(names: tuple[str, str], first: Array, second: Array, *, higher: bool = True, seed: int = 0) -> Versus:
    """Compare two maps' scores (photos,), in the same order of photos.

    The intervals are paired: a resample takes a photo's two scores together. The photos that are needed are
    ((z(0.975) + z(0.8)) · s / d)², with d and s the mean and the standard deviation of the differences.

    Args:
        names: Of both.
        first: Scores of the first.
        second: Of the second.
        higher: Whether higher is better.
        seed: Of the resampling.
    """
    delta = (first - second) if higher else (second - first)
    better = (delta > 0) + 0.5 * (delta == 0)
    difference, share = intervals(np.stack([delta, better], axis=1), seed=seed)
    needed = None
    if len(delta) > 1 and difference.mean:
        z = NormalDist().inv_cdf((1 + LEVEL) / 2) + NormalDist().inv_cdf(POWER)
        needed = ceil(float((z * delta.std(ddof=1) / difference.mean) ** 2))
    return Versus(names, difference, share, needed)


def student(freedom: int) -> float:
    """The 97.5th percentile of Student's t, by its expansion about the normal one: 0.1 % off from 5 degrees on."""
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    found: float = z + sum(term / freedom ** (order + 1) for order, term in enumerate(terms))
    return found


def kendall_tau(first: Array, second: Array) -> float:
    """τ-b of two rankings: (concordant − discordant) / √(pairs untied in the first · in the second); NaN if all tie."""
    a, b = (np.sign(each[:, None] - each[None, :])[np.triu_indices(len(each), 1)] for each in (first, second))
    size = np.sqrt(float((a != 0).sum()) * float((b != 0).sum()))
    return float((a * b).sum() / size) if size else float("nan")


def half_sample_tau(values: Array, *, splits: int = 100, seed: int = 0) -> float:
    """Mean τ between the rankings that two random halves of the photos give; NaN with fewer than two photos.

    Args:
        values: (photos, maps).
        splits: How many random halves.
        seed: Of them.
    """
    if len(values) < 2 or values.shape[1] < 2:
        return float("nan")
    source = np.random.default_rng(seed)
    found = []
    for _ in range(splits):
        order, half = source.permutation(len(values)), len(values) // 2
        found.append(kendall_tau(values[order[:half]].mean(axis=0), values[order[half:]].mean(axis=0)))
    return float(np.mean(found))


def _weights(photos: int, seed: int) -> Iterator[Array]:
    """(R, photos): how often each photo is in each resample, divided by their number; some resamples at once."""
    source = np.random.default_rng(seed)
    left = RESAMPLES
    while left:
        rows = min(left, max(1, _AT_ONCE // photos))
        yield source.multinomial(photos, np.full(photos, 1 / photos), size=rows) / photos
        left -= rows
