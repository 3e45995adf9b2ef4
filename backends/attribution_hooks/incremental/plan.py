"""Which part of every layer a window can change: integers alone, no tensors.

Windows, kernels and joins are separable, so rows and columns are planned apart: along one axis, an op turns the
half-open interval of changed positions of its inputs into that of its output. Windows whose intervals are alike
share a `Band` and with it one tile size per op; a tile may be larger than what its window changes, never smaller.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from attribution.techniques.perturbation.lattice import Interval, Lattice

Pair = tuple[int, int]

DENSE_FROM = 0.9
"""A tile that covers this part of its map or more is computed whole: what a tile saves, its gathers cost."""

SLACK = 0.05
"""How much more work along one axis than the least possible is given for fewer tile shapes."""


@dataclass(frozen=True)
class Op:
    """One step of a network as far as places are concerned.

    Attributes:
        inputs: Positions of the ops that it reads; none for the image.
        size: Height and width of its output.
        macs: Multiply-accumulates per output pixel.
        kernel: Height and width; 1 for what works pixel by pixel.
        stride: Down and right.
        dilation: Likewise.
        padding: Above and left.
    """

    inputs: tuple[int, ...]
    size: Pair
    macs: int = 0
    kernel: Pair = (1, 1)
    stride: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: Pair = (0, 0)

    @property
    def local(self) -> bool:
        """Whether each output pixel reads the same pixel of every input, and nothing else."""
        return self.kernel == (1, 1) == self.stride and self.padding == (0, 0)


def reach(ops: Sequence[Op], axis: int, changed: Interval) -> list[Interval]:
    """What each op changes along an axis when the image changes in one interval.

    An op that skips all changed pixels (a stride larger than its kernel) is given one pixel, so that no tile is empty.

    Args:
        ops: In an order in which inputs come first.
        axis: 0 for rows, 1 for columns.
        changed: Half open, of the image.
    """
    found: list[Interval] = []
    for op in ops:
        size = op.size[axis]
        if not op.inputs:
            found.append(changed)
            continue
        low = min(found[i][0] for i in op.inputs)
        high = max(found[i][1] for i in op.inputs)
        stride, padding = op.stride[axis], op.padding[axis]
        halo = op.dilation[axis] * (op.kernel[axis] - 1)
        low = min(max(0, -(-(low + padding - halo) // stride)), size - 1)
        high = max(min(size, (high - 1 + padding) // stride + 1), low + 1)
        found.append((low, high))
    return found


@dataclass(frozen=True)
class Band:
    """Positions of windows along one axis that share a tile size per op.

    Attributes:
        positions: Indices into the lattice's intervals.
        width: Of the tile of each op.
        start: Of the tile of each op, for each position: ``start[op][k]`` belongs to ``positions[k]``.
    """

    positions: tuple[int, ...]
    width: tuple[int, ...]
    start: tuple[tuple[int, ...], ...]


def _bands(reaches: Sequence[Sequence[Interval]], sizes: Sequence[int], price: Sequence[float]) -> list[Band]:
    """Merge positions, the cheapest pair first, while all merges together cost no more than `SLACK`.

    Positions whose tiles have the same sizes, as nearly all within an image, are one from the start.

    Args:
        reaches: For each position, the interval of each op.
        sizes: Of each op's output along this axis.
        price: Work per unit of width of each op.
    """
    alike: dict[tuple[int, ...], list[int]] = {}
    for position, intervals in enumerate(reaches):
        alike.setdefault(tuple(high - low for low, high in intervals), []).append(position)
    found = []
    for positions, widths in _merged(list(alike.values()), np.array(list(alike)), np.array(price)):
        start = tuple(
            tuple(min(reaches[position][op][0], sizes[op] - width) for position in positions)
            for op, width in enumerate(widths)
        )
        found.append(Band(tuple(positions), tuple(widths), start))
    return found


def _merged(
    bins: list[list[int]], widths: np.ndarray[Any, Any], price: np.ndarray[Any, Any]
) -> list[tuple[list[int], list[int]]]:
    """Bins of positions and their widths (bins, ops), joined pair by pair; a pair's widths are the larger ones."""
    counts = np.array(list(map(len, bins)))
    costs = counts * (widths @ price)
    allowed = SLACK * costs.sum()

    def extras(bin_: int) -> np.ndarray[Any, Any]:
        """What joining one bin with each other costs."""
        joint = (counts + counts[bin_]) * (np.maximum(widths, widths[bin_]) @ price)
        return np.asarray(joint - costs - costs[bin_])

    extra = np.stack([extras(bin_) for bin_ in range(len(bins))])
    np.fill_diagonal(extra, np.inf)
    while True:
        a, b = sorted(divmod(int(extra.argmin()), len(bins)))
        if extra[a, b] > allowed or a == b:
            break
        allowed -= extra[a, b]
        bins[a], bins[b] = sorted(bins[a] + bins[b]), []
        widths[a], counts[a] = np.maximum(widths[a], widths[b]), counts[a] + counts[b]
        costs[a] = counts[a] * (widths[a] @ price)
        extra[b], extra[:, b] = np.inf, np.inf
        alive = np.isfinite(extra[a])
        extra[a, alive] = extra[alive, a] = extras(a)[alive]
    return [(positions, widths[bin_].tolist()) for bin_, positions in enumerate(bins) if positions]


@dataclass(frozen=True)
class Group:
    """Windows that run together: a band of rows crossed with a band of columns.

    Attributes:
        rows: Band of the windows' rows.
        columns: Of their columns.
        whole: For each op whether its tile is the whole map.
        shapes: Height and width of each op's tile.
        kept: Places of the windows that are run among all crossings of the bands; ``None``: all of them.
    """

    rows: Band
    columns: Band
    whole: tuple[bool, ...]
    shapes: tuple[Pair, ...]
    kept: tuple[int, ...] | None = None

    @cached_property
    def places(self) -> Sequence[int]:
        """Of each window among the crossings of the bands."""
        return range(len(self.rows.positions) * len(self.columns.positions)) if self.kept is None else self.kept

    @cached_property
    def windows(self) -> list[Pair]:
        """(row position, column position) of each, row by row."""
        along = self.columns.positions
        return [(self.rows.positions[place // len(along)], along[place % len(along)]) for place in self.places]

    def __contains__(self, window: Pair) -> bool:
        """Whether it runs the window at these positions of row and column."""
        return window in self.windows

    def starts(self, op: int) -> tuple[list[int], list[int]]:
        """Top and left of an op's tile, for each of the windows."""
        if self.whole[op]:
            return [0] * len(self.places), [0] * len(self.places)
        tops, lefts = self.rows.start[op], self.columns.start[op]
        return [tops[place // len(lefts)] for place in self.places], [
            lefts[place % len(lefts)] for place in self.places
        ]

    @classmethod
    def of(cls, ops: Sequence[Op], rows: Band, columns: Band) -> "Group":
        """Decide for each op whether its tile is worth having; behind a whole map, maps stay whole."""
        whole: list[bool] = []
        for index, op in enumerate(ops):
            area = rows.width[index] * columns.width[index]
            full = area >= DENSE_FROM * op.size[0] * op.size[1]
            whole.append(full or any(whole[i] for i in op.inputs))
        shapes = tuple(
            op.size if whole[index] else (rows.width[index], columns.width[index]) for index, op in enumerate(ops)
        )
        return cls(rows, columns, tuple(whole), shapes)


@dataclass(frozen=True)
class Plan:
    """How all windows of a lattice run through a network.

    Attributes:
        ops: Of the part of the network that is local.
        lattice: The windows.
        groups: Each window is in one.
        rest: Multiply-accumulates per image of what follows, which always runs whole.
    """

    ops: tuple[Op, ...]
    lattice: Lattice
    groups: tuple[Group, ...]
    rest: int

    @classmethod
    def of(cls, ops: Iterable[Op], lattice: Lattice, rest: int) -> "Plan":
        """Plan a lattice of windows over ops whose first is the image."""
        ops = tuple(ops)
        reaches = [
            [reach(ops, axis, interval) for interval in intervals]
            for axis, intervals in enumerate((lattice.rows, lattice.columns))
        ]
        means = [
            [sum(high - low for low, high in column) / len(column) for column in zip(*along, strict=True)]
            for along in reaches
        ]
        bands = [
            _bands(
                reaches[axis],
                [op.size[axis] for op in ops],
                [(op.macs + 1) * mean for op, mean in zip(ops, means[1 - axis], strict=True)],
            )
            for axis in (0, 1)
        ]
        groups = [Group.of(ops, rows, columns) for rows in bands[0] for columns in bands[1]]
        if lattice.kept is not None:
            groups = [replace(group, kept=_kept(group, lattice)) for group in groups]
        return cls(ops, lattice, tuple(group for group in groups if len(group.places)), rest)

    @property
    def dense(self) -> int:
        """Multiply-accumulates of one full forward per window."""
        per_image = self.rest + sum(op.macs * op.size[0] * op.size[1] for op in self.ops)
        return per_image * len(self.lattice)

    @property
    def executed(self) -> int:
        """Multiply-accumulates of this plan, without the clean pass."""
        return sum(len(group.windows) * (self.rest + self.macs(group)) for group in self.groups)

    def macs(self, group: Group) -> int:
        """Multiply-accumulates of one window's tiles."""
        return sum(op.macs * height * width for op, (height, width) in zip(self.ops, group.shapes, strict=True))

    @cached_property
    def floor(self) -> int:
        """Multiply-accumulates if every window had tiles of its own, of exactly what it changes."""
        total: int = self.rest * len(self.lattice)
        widths = [
            [[high - low for low, high in column]
             for column in zip(*(reach(self.ops, axis, i) for i in along), strict=True)]
            for axis, along in enumerate((self.lattice.rows, self.lattice.columns))
        ]  # fmt: skip
        run = None if self.lattice.kept is None else [divmod(at, len(self.lattice.columns)) for at in self.lattice.kept]
        for op, heights, across in zip(self.ops, *widths, strict=True):
            area = sum(heights) * sum(across) if run is None else sum(heights[i] * across[j] for i, j in run)
            total += op.macs * area
        return total


def _kept(group: Group, lattice: Lattice) -> tuple[int, ...]:
    """Which crossings of a group's bands are windows of the lattice."""
    run, columns = set(lattice.kept or ()), len(lattice.columns)
    return tuple(place for place, (row, column) in enumerate(group.windows) if row * columns + column in run)
