"""Which rows of the buffers a group's windows read: one number per row and one per column of each rectangle.

A buffer holds pixels one after the other: the clean maps, then tiles. What a window reads of a source is its own tile
where that reaches, the clean map elsewhere. Either way a pixel's place is the number of its row plus that of its
column, so that a few thousand integers, computed on the host, say where millions of pixels lie.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from attribution.techniques.perturbation.lattice import Interval
from attribution_hooks.incremental.axis import Array, Axis, Collected
from attribution_hooks.incremental.plan import Band, Group, Op, Plan

Pair = tuple[int, int]


@dataclass(frozen=True)
class Area:
    """Clean maps in a buffer, each with a border of what lies outside of it.

    Attributes:
        fill: What the border holds.
        before: Its width above and to the left.
        size: Height and width, border included.
    """

    fill: float
    before: Pair
    size: Pair

    @property
    def places(self) -> int:
        """Rows of the buffer for one map."""
        return self.size[0] * self.size[1]


@dataclass(frozen=True)
class Reading:
    """One rectangle for each window.

    Attributes:
        source: The step whose map is read.
        area: Where its clean maps lie.
        rows: The rectangle's own among the row numbers of all readings.
        columns: Likewise.
    """

    source: int
    area: Area
    rows: slice
    columns: slice


@dataclass(frozen=True, eq=False)
class Readings:
    """All that the steps of one group read, and where, as far as it does not depend on which of its windows run.

    Attributes:
        group: Of the plan.
        moves: For each step and each of its inputs, what is read beyond the tile's own place; ``None`` where the tile
            itself serves.
        image: The image's own tile, where a step or an exit takes it as it is.
        exits: Source → the height of its whole map, which is read, where the group has less of it.
        whole: For each step whether it works on whole maps only.
        rows: Of all rectangles.
        columns: Likewise.
    """

    group: Group
    moves: tuple[tuple[Reading | None, ...], ...]
    image: Reading | None
    exits: Mapping[int, int]
    whole: tuple[bool, ...]
    rows: Axis
    columns: Axis

    @cached_property
    def all(self) -> list[Reading]:
        """In the order of their numbers."""
        moved = [reading for inputs in self.moves for reading in inputs if reading is not None]
        return [*([self.image] if self.image else []), *moved]

    @cached_property
    def stored(self) -> set[int]:
        """Sources whose tiles are read from their buffer."""
        return {reading.source for reading in self.all} - {0}

    @cached_property
    def places(self) -> Array:
        """(2, Σ heights), for each row number the pixels of one window's tile and of one clean map."""
        shapes = [self.group.shapes[reading.source] if reading.source else (0, 0) for reading in self.all]
        sizes = [
            (height * width, reading.area.places) for (height, width), reading in zip(shapes, self.all, strict=True)
        ]
        return np.array(sizes, dtype=np.int64).reshape(-1, 2).T[:, self.rows.of]

    def numbers(self, first: Array, pairs: Sequence[Pair]) -> tuple[Array, Array]:
        """The rows (2, B, Σ heights) and columns (2, B, Σ widths) that windows read.

        Args:
            first: (2, readings), where in its buffer the tiles and the clean maps of each reading begin.
            pairs: For each of the B, its place among the crossings of the group's bands, and the image.
        """
        down, across, images = self._split(pairs)
        rows = self.rows.numbers(down)
        rows += first[:, None, self.rows.of]
        rows += np.stack([np.arange(len(pairs)), images])[:, :, None] * self.places[:, None]
        return rows, self.columns.numbers(across)

    @cached_property
    def _corners(self) -> list[tuple[Array, Array]]:
        """For each exit the first rows and first columns of its tiles, by position in the band."""
        bands = (self.group.rows, self.group.columns)
        return [(_starts(self.group, bands[0], source), _starts(self.group, bands[1], source)) for source in self.exits]

    def tiles(self, pairs: Sequence[Pair]) -> tuple[Array, list[tuple[Array, Array]]]:
        """The images (B,), and for each exit the rows (B, h) and columns (B, w) of tiles in B whole maps.

        The maps lie below each other: their rows are counted on.
        """
        down, across, images = self._split(pairs)
        found, maps = [], np.arange(len(pairs))
        for (source, size), (tops, lefts) in zip(self.exits.items(), self._corners, strict=True):
            height, width = self.group.shapes[source]
            first = maps * size + tops[down]
            found.append((first[:, None] + np.arange(height), lefts[across, None] + np.arange(width)))
        return images, found

    def _split(self, pairs: Sequence[Pair]) -> tuple[Array, Array, Array]:
        """Positions in the band of rows, in that of columns, and images."""
        windows, images = np.array(pairs).T
        return *np.divmod(windows, len(self.group.columns.positions)), images


class _Reader:
    """Collects what one group reads."""

    def __init__(self, plan: Plan, group: Group, areas: Mapping[tuple[int, float], Area]) -> None:
        self._plan, self._group, self._areas = plan, group, areas
        self._along = (Collected(), Collected())

    def read(self, op: Op, source: int, fill: float, shape: Pair, starts: tuple[Array, Array]) -> Reading:
        """What an op reads of a source for an output of this shape that begins at these rows and columns."""
        area, places = self._areas[source, fill], []
        for axis, along in enumerate(self._along):
            steps = _span(op, axis, shape[axis])
            first = starts[axis] * op.stride[axis] - op.padding[axis]
            tile, reach, unit = self._tile(source, axis)
            start = np.stack([first - tile, first + area.before[axis]])
            places.append(along.add(start, reach, steps, (unit, area.size[1] if axis == 0 else 1)))
        return Reading(source, area, *places)

    def _tile(self, source: int, axis: int) -> tuple[Array, Array, int]:
        """Where a source's tile begins and how far it reaches, for each position, and how far its pixels are apart.

        All of what covers the image is one pixel.
        """
        group, lattice = self._group, self._plan.lattice
        band = group.rows if axis == 0 else group.columns
        if source == 0:
            along: Sequence[Interval] = lattice.rows if axis == 0 else lattice.columns
            begin, end = np.array([along[position] for position in band.positions], dtype=np.int64).T
            return begin, end - begin, 0
        begin, (height, width) = _starts(group, band, source), group.shapes[source]
        return begin, np.full(len(begin), (height, width)[axis]), width if axis == 0 else 1

    def axes(self) -> tuple[Axis, Axis]:
        rows, columns = self._along
        return rows.axis(len(self._group.rows.positions)), columns.axis(len(self._group.columns.positions))


def _starts(group: Group, band: Band, op: int) -> Array:
    """First row (or column) of an op's tile, for each position of the group's band."""
    return np.array((0,) * len(band.positions) if group.whole[op] else band.start[op], dtype=np.int64)


def _span(op: Op, axis: int, size: int) -> Array:
    """How far from the first place an op reads along an axis for ``size`` outputs in a row."""
    kernel, stride, dilation = op.kernel[axis], op.stride[axis], op.dilation[axis]
    if kernel == 1:
        return np.arange(size, dtype=np.int64) * stride
    return np.arange((size - 1) * stride + dilation * (kernel - 1) + 1, dtype=np.int64)


def _areas(plan: Plan, fills: Sequence[float]) -> dict[tuple[int, float], Area]:
    """Of each source and each value that some step reads outside of it: borders wide enough for all of these steps."""
    borders: dict[tuple[int, float], list[int]] = {}
    for op, fill in zip(plan.ops, fills, strict=True):
        for source in op.inputs:
            border = borders.setdefault((source, fill), [0, 0, 0, 0])
            for axis in (0, 1):
                reach = (op.size[axis] - 1) * op.stride[axis] + op.dilation[axis] * (op.kernel[axis] - 1)
                after = reach - op.padding[axis] - (plan.ops[source].size[axis] - 1)
                border[axis] = max(border[axis], op.padding[axis])
                border[2 + axis] = max(border[2 + axis], after)
    if not any(source == 0 for source, _ in borders):
        borders[0, 0.0] = [0, 0, 0, 0]  # the image's own tile is read all the same
    return {
        (source, fill): Area(
            fill, (top, left), (plan.ops[source].size[0] + top + bottom, plan.ops[source].size[1] + left + right)
        )
        for (source, fill), (top, left, bottom, right) in borders.items()
    }


def readings(plan: Plan, fills: Sequence[float], exits: Iterable[int]) -> list[Readings]:
    """Of each group of a plan.

    Args:
        plan: Of the network.
        fills: What each op reads outside of a map: 0 or −inf.
        exits: Ops whose whole maps the rest of the network reads.
    """
    areas, ends = _areas(plan, fills), dict.fromkeys(exits)
    return [_of(plan, group, areas, fills, ends) for group in plan.groups]


def _of(
    plan: Plan, group: Group, areas: Mapping[tuple[int, float], Area], fills: Sequence[float], exits: Iterable[int]
) -> Readings:
    reader, ops = _Reader(plan, group, areas), plan.ops
    at = [(_starts(group, group.rows, index), _starts(group, group.columns, index)) for index in range(len(ops))]
    still = [
        [
            (group.whole[source] and group.whole[index])
            or (
                op.local
                and group.shapes[source] == group.shapes[index]
                and all(map(np.array_equal, at[source], at[index]))
            )
            for source in op.inputs
        ]
        for index, op in enumerate(ops)
    ]
    as_it_is = any(
        source == 0 and kept
        for op, keeps in zip(ops, still, strict=True)
        for source, kept in zip(op.inputs, keeps, strict=True)
    )
    image = None
    if as_it_is or 0 in exits:
        fill = next(fill for source, fill in areas if source == 0)  # any serves
        image = reader.read(ops[0], 0, fill, group.shapes[0], at[0])
    moves = tuple(
        tuple(
            None if kept else reader.read(op, source, fills[index], group.shapes[index], at[index])
            for source, kept in zip(op.inputs, still[index], strict=True)
        )
        for index, op in enumerate(ops)
    )
    whole = tuple(
        group.whole[index] and all(group.whole[source] for source in op.inputs) for index, op in enumerate(ops)
    )
    ends = {source: ops[source].size[0] for source in exits if not group.whole[source]}
    return Readings(group, moves, image, ends, whole, *reader.axes())
