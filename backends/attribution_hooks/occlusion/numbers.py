"""Which rows of the buffers a group's windows read: one number per row and one per column of each rectangle.

A buffer holds pixels one after the other: the clean maps, then tiles. What a window reads of a source is its own tile
where that reaches, the clean map elsewhere. Either way a pixel's place is the number of its row plus that of its
column, so that a few thousand integers, computed on the host, say where millions of pixels lie.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from attribution.techniques.occlusion import Interval
from attribution_hooks.occlusion.plan import Band, Group, Op, Plan

Pair = tuple[int, int]
Array = np.ndarray[Any, np.dtype[np.int64]]

ABSENT = -(2**60)
"""Of a row or column that a tile does not reach: the sum is below every clean one."""


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


@dataclass(frozen=True)
class Readings:
    """All that the steps of one group read, and where, as far as it does not depend on which of its windows run.

    Attributes:
        group: Of the plan.
        moves: For each step and each of its inputs, what is read beyond the tile's own place; ``None`` where the tile
            itself serves.
        image: The image's own tile, where a step takes it as it is.
        exits: Source → its whole map, where the group has less of it.
        whole: For each step whether it works on whole maps only.
        rows: (2, band of rows, Σ heights): in the tile, in the clean map.
        columns: (2, band of columns, Σ widths), likewise.
    """

    group: Group
    moves: tuple[tuple[Reading | None, ...], ...]
    image: Reading | None
    exits: Mapping[int, Reading]
    whole: tuple[bool, ...]
    rows: Array
    columns: Array

    @cached_property
    def all(self) -> list[Reading]:
        """In the order of their numbers."""
        moved = [reading for inputs in self.moves for reading in inputs if reading is not None]
        return [*([self.image] if self.image else []), *moved, *self.exits.values()]

    @cached_property
    def stored(self) -> set[int]:
        """Sources whose tiles are read from their buffer."""
        return {reading.source for reading in self.all} - {0}

    @cached_property
    def of(self) -> Array:
        """(Σ heights,), the position in `all` of the reading that each row number belongs to."""
        return np.repeat(np.arange(len(self.all)), [reading.rows.stop - reading.rows.start for reading in self.all])

    @cached_property
    def places(self) -> Array:
        """(2, Σ heights), for each row number the pixels of one window's tile and of one clean map."""
        shapes = [self.group.shapes[reading.source] if reading.source else (0, 0) for reading in self.all]
        sizes = [
            (height * width, reading.area.places) for (height, width), reading in zip(shapes, self.all, strict=True)
        ]
        return np.array(sizes).T[:, self.of]

    def numbers(self, first: Array, pairs: Sequence[Pair]) -> tuple[Array, Array]:
        """The rows (2, B, Σ heights) and columns (2, B, Σ widths) that windows read.

        Args:
            first: (2, readings), where in its buffer the tiles and the clean maps of each reading begin.
            pairs: For each of the B, the position in ``group.windows`` and the image.
        """
        windows, images = np.array(pairs).T
        down, across = np.divmod(windows, len(self.group.columns.positions))
        rows = self.rows[:, down]
        rows += first[:, None, self.of]
        rows += np.stack([np.arange(len(pairs)), images])[:, :, None] * self.places[:, None]
        return rows, self.columns[:, across]


class _Reader:
    """Collects what one group reads."""

    def __init__(self, plan: Plan, group: Group, areas: Mapping[tuple[int, float], Area]) -> None:
        self._plan, self._group, self._areas = plan, group, areas
        self._tables: tuple[list[Array], list[Array]] = ([], [])
        self._ends = [0, 0]

    def read(
        self, op: Op, source: int, fill: float, shape: Pair, starts: tuple[Sequence[int], Sequence[int]]
    ) -> Reading:
        """What an op reads of a source for an output of this shape that begins at these rows and columns."""
        area, places = self._areas[source, fill], []
        for axis in (0, 1):
            at = _span(op, axis, starts[axis], shape[axis])
            unit = area.size[1] if axis == 0 else 1
            table = np.stack([self._own(source, axis, at), (at + area.before[axis]) * unit])
            self._tables[axis].append(table)
            places.append(slice(self._ends[axis], self._ends[axis] + at.shape[1]))
            self._ends[axis] = places[axis].stop
        return Reading(source, area, *places)

    def _own(self, source: int, axis: int, at: Array) -> Array:
        """Where in the source's tile; all of what covers the image is one pixel."""
        group, lattice = self._group, self._plan.lattice
        band = group.rows if axis == 0 else group.columns
        if source == 0:
            along: Sequence[Interval] = lattice.rows if axis == 0 else lattice.columns
            ends = np.array([along[position] for position in band.positions])[:, :, None]
            return np.where((at >= ends[:, 0]) & (at < ends[:, 1]), 0, ABSENT)
        own = at - np.array(starts(group, band, source))[:, None]
        unit = group.shapes[source][1] if axis == 0 else 1
        return np.where((own >= 0) & (own < group.shapes[source][axis]), own * unit, ABSENT)

    def tables(self) -> tuple[Array, Array]:
        bands = (self._group.rows, self._group.columns)
        rows, columns = (
            np.concatenate([np.zeros((2, len(band.positions), 0), np.int64), *tables], axis=2)
            for band, tables in zip(bands, self._tables, strict=True)
        )
        return rows, columns


def starts(group: Group, band: Band, op: int) -> Sequence[int]:
    """First row (or column) of an op's tile, for each position of the group's band."""
    return (0,) * len(band.positions) if group.whole[op] else band.start[op]


def _span(op: Op, axis: int, first: Sequence[int], size: int) -> Array:
    """Where along an axis an op reads for outputs from ``first`` on: (positions, span)."""
    kernel, stride, dilation, padding = op.kernel[axis], op.stride[axis], op.dilation[axis], op.padding[axis]
    span, unit = (size, stride) if kernel == 1 else ((size - 1) * stride + dilation * (kernel - 1) + 1, 1)
    return (np.array(first, dtype=np.int64) * stride - padding)[:, None] + np.arange(span) * unit


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
    for source in range(len(plan.ops)):
        if not any((source, fill) in borders for fill in (0.0, -np.inf)):
            borders[source, 0.0] = [0, 0, 0, 0]
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
    at = [(starts(group, group.rows, index), starts(group, group.columns, index)) for index in range(len(ops))]
    still = [
        [
            (group.whole[source] and group.whole[index])
            or (op.local and group.shapes[source] == group.shapes[index] and at[source] == at[index])
            for source in op.inputs
        ]
        for index, op in enumerate(ops)
    ]
    some = lambda source: next(fill for fill in (0.0, -np.inf) if (source, fill) in areas)  # noqa: E731  # any serves
    as_it_is = any(
        source == 0 and kept
        for op, keeps in zip(ops, still, strict=True)
        for source, kept in zip(op.inputs, keeps, strict=True)
    )
    image = None
    if as_it_is or (0 in exits and group.whole[0]):
        image = reader.read(ops[0], 0, some(0), group.shapes[0], at[0])
    moves = tuple(
        tuple(
            None if kept else reader.read(op, source, fills[index], group.shapes[index], at[index])
            for source, kept in zip(op.inputs, still[index], strict=True)
        )
        for index, op in enumerate(ops)
    )
    zeros = (0,) * len(group.rows.positions), (0,) * len(group.columns.positions)
    ends = {
        source: reader.read(Op((source,), ops[source].size), source, some(source), ops[source].size, zeros)
        for source in exits
        if not group.whole[source]
    }
    whole = tuple(
        group.whole[index] and all(group.whole[source] for source in op.inputs) for index, op in enumerate(ops)
    )
    return Readings(group, moves, image, ends, whole, *reader.tables())
