"""``Pieces``: the points of a technique in parts, each made when it is asked for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from torch import Tensor

from attribution.errors import PluginError
from attribution.inputs.inputs import Inputs, joined
from attribution.techniques.gradient.family import Point


@dataclass(frozen=True)
class Piece:
    """Some examples of one point, without their inputs.

    Attributes:
        weight: Of the point.
        factor: Of the point, for all examples.
        rows: Which examples.
    """

    weight: float
    factor: Mapping[str, Tensor] | None
    rows: slice


class Pieces:
    """Examples of points, in a row: all of the first point, then all of the next.

    No point is kept beyond its last example. Points are made anew where one goes back, as where memory ran out.

    Args:
        points: Makes all of them.
        count: How many examples each has.
    """

    def __init__(self, points: Callable[[], Iterator[Point]], count: int) -> None:
        self._points, self._count = points, count
        self._coming, self._next = points(), 0
        self._last: Point | None = None

    def at(self, places: Sequence[int]) -> tuple[Inputs, list[Piece]]:
        """The inputs at consecutive places, and of what they are pieces."""
        inputs, found, (first, end) = [], [], (places[0], places[-1] + 1)
        for index in range(first // self._count, (end - 1) // self._count + 1):
            begin = index * self._count
            rows = slice(max(first - begin, 0), min(end - begin, self._count))
            point = self._point(index)
            inputs.append(point.inputs[rows])
            found.append(Piece(point.weight, point.factor, rows))
            if rows.stop == self._count:
                self._last = None
        return joined(inputs), found

    def _point(self, index: int) -> Point:
        if self._last is not None and index == self._next - 1:
            return self._last
        if index < self._next:
            self._coming, self._next = self._points(), 0
        point = next(islice(self._coming, index - self._next, None), None)
        if point is None:
            raise PluginError(f"the technique's points() end before point {index}; make as many as its samples say")
        self._last, self._next = point, index + 1
        return point
