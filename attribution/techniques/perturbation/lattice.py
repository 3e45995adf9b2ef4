"""``Lattice``: where the windows lie that are covered one after the other."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import compress, product
from math import prod
from typing import Any

import numpy as np
from torch import Tensor

Interval = tuple[int, int]
Bounds = tuple[Interval, ...]
"""One interval per place axis."""

Array = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Lattice:
    """Windows on an input: the intervals of each place axis crossed with those of the others, half open.

    An image has two place axes (rows and columns), a volume three, a sequence one.

    Attributes:
        axes: The intervals along each place axis, in order.
        kept: Places of the windows that are run among all crossings, ascending; ``None``: all of them.
    """

    axes: tuple[tuple[Interval, ...], ...]
    kept: tuple[int, ...] | None = None

    @property
    def windows(self) -> list[Bounds]:
        """The intervals of each window that is run, the last axis fastest: of an image (rows, columns)."""
        crossed = list(product(*self.axes))
        return crossed if self.kept is None else [crossed[index] for index in self.kept]

    @cached_property
    def _numbers(self) -> dict[int, int]:
        return {} if self.kept is None else {place: number for number, place in enumerate(self.kept)}

    def numbers(self, windows: Iterable[tuple[int, int]]) -> list[int]:
        """Of an image, which of the windows that are run are the crossings of these (row, column) intervals."""
        across = len(self.axes[-1])
        places = [row * across + column for row, column in windows]
        return places if self.kept is None else [self._numbers[place] for place in places]

    def __len__(self) -> int:
        """How many windows are run."""
        return prod(map(len, self.axes)) if self.kept is None else len(self.kept)

    @property
    def rows(self) -> tuple[Interval, ...]:
        """Of an image, the intervals along its height."""
        return self.axes[-2]

    @property
    def columns(self) -> tuple[Interval, ...]:
        """Of an image, the intervals along its width."""
        return self.axes[-1]

    @property
    def bounds(self) -> Bounds:
        """Along each axis, from where the first window begins to where the last one ends."""
        return tuple((intervals[0][0], intervals[-1][1]) for intervals in self.axes)

    def touching(self, region: Tensor | Bounds) -> "Lattice | None":
        """Those windows that share a place with a region: a mask of places, or bounds; ``None`` where none does."""
        if isinstance(region, tuple):
            axes = tuple(
                tuple(each for each in intervals if each[0] < end and begin < each[1])
                for intervals, (begin, end) in zip(self.axes, region, strict=True)
            )
            return Lattice(axes) if all(axes) else None
        found: Array = region.numpy()
        for intervals in self.axes:  # each round takes the first axis away and puts that of the intervals last
            found = np.stack([found[begin:end].any(axis=0) for begin, end in intervals], axis=-1)
        if not found.any():
            return None
        others = [tuple({*range(found.ndim)} - {axis}) for axis in range(found.ndim)]
        along = [_filled(np.asarray(found.any(axis=axes))) for axes in others]
        axes = tuple(tuple(compress(*pair)) for pair in zip(self.axes, along, strict=True))
        cut = found[np.ix_(*along)].reshape(-1)
        return Lattice(axes, None if cut.all() else tuple(np.flatnonzero(cut).tolist()))


def intervals(size: int, window: int, step: int, *, whole_only: bool) -> tuple[Interval, ...]:
    """Windows along an axis: from 0 by ``step``, the last one cut at the end, or left out where ``whole_only``."""
    count = (size - window) // step + 1 if whole_only else -(-(size - window) // step) + 1
    return tuple((index * step, min(index * step + window, size)) for index in range(count))


def inside(intervals: tuple[Interval, ...], size: int) -> "np.ndarray[tuple[int, int], np.dtype[np.bool_]]":
    """Which places along an axis each interval covers: (intervals, size)."""
    ends, at = np.array(intervals), np.arange(size)
    return (at >= ends[:, :1]) & (at < ends[:, 1:])


def _filled(some: Array) -> Array:
    """All from the first to the last: gaps are kept, so that the intervals lie one step apart."""
    found = np.flatnonzero(some)
    every = np.zeros_like(some)
    every[found[0] : found[-1] + 1] = True
    return every
