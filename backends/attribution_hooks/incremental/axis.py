"""What all rectangles of a group read along one axis, as few integers as say it.

What is kept is where each window's rectangles begin and how long they are; the numbers of a window are made when it
runs. Those of all windows together would grow with the square of an image's length.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Pair = tuple[int, int]
Array = np.ndarray[Any, np.dtype[np.int64]]

ABSENT = -(2**60)
"""Of a row or column that a tile does not reach: the sum is below every clean one."""


@dataclass(frozen=True, eq=False)
class Axis:
    """All rectangles of a group along one axis.

    Attributes:
        start: (2, positions of the band, readings), where a rectangle begins: seen from the tile, in the clean map.
        reach: (positions, readings), how far the tile reaches.
        of: (Σ spans,), the reading that each number belongs to.
        steps: (Σ spans,), how far it is from where its rectangle begins.
        units: (2, Σ spans), how many pixels of the tile and of the clean map lie between two neighbours.
    """

    start: Array
    reach: Array
    of: Array
    steps: Array
    units: Array

    def numbers(self, positions: Array) -> Array:
        """(2, B, Σ spans), in the tile and in the clean map, for B positions of the band."""
        some, each = np.unique(positions, return_inverse=True)
        found = self.start[:, some][:, :, self.of]
        found += self.steps
        absent = (found[0] < 0) | (found[0] >= self.reach[some][:, self.of])
        found *= self.units[:, None]
        found[0][absent] = ABSENT
        return found[:, each]


@dataclass
class Collected:
    """Rectangles along one axis, one after the other."""

    _starts: list[Array] = field(default_factory=list)
    _reaches: list[Array] = field(default_factory=list)
    _steps: list[Array] = field(default_factory=list)
    _units: list[Pair] = field(default_factory=list)
    _end: int = 0

    def add(self, start: Array, reach: Array, steps: Array, units: Pair) -> slice:
        """Take one more rectangle; returns its own among the numbers of all.

        Args:
            start: (2, positions), as of `Axis`.
            reach: (positions,).
            steps: (span,).
            units: Of the tile and of the clean map.
        """
        self._starts.append(start)
        self._reaches.append(reach)
        self._steps.append(steps)
        self._units.append(units)
        self._end += len(steps)
        return slice(self._end - len(steps), self._end)

    def axis(self, positions: int) -> Axis:
        """All that was taken, for a band of this many positions."""
        of = np.repeat(np.arange(len(self._steps)), [len(steps) for steps in self._steps])
        return Axis(
            np.stack([np.zeros((2, positions), np.int64), *self._starts], axis=2)[:, :, 1:],
            np.stack([np.zeros(positions, np.int64), *self._reaches], axis=1)[:, 1:],
            of,
            np.concatenate([np.zeros(0, np.int64), *self._steps]),
            np.array(self._units, dtype=np.int64).reshape(-1, 2).T[:, of],
        )
