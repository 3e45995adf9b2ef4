"""Tiles of every layer, their surroundings read from the clean image."""

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from attribution_hooks.occlusion.graph import Program
from attribution_hooks.occlusion.plan import Group, Op, Plan
from attribution_hooks.occlusion.steps import channels_first

Pair = tuple[int, int]

_ZERO, _LOWEST, _CLEAN = 0, 1, 2
"""First rows of a buffer: what lies outside a map (for sums, for maxima), then the clean maps."""


class _Prepared:
    """A group with everything that does not depend on which of its windows run.

    Attributes:
        group: Of the plan.
        starts: (steps, 2, windows), top and left of each step's tile.
        moves: For each step and each of its inputs, whether the input is read beyond its tile's own place.
        whole: For each step whether it works on whole maps only.
    """

    def __init__(self, plan: Plan, group: Group) -> None:
        self.group = group
        places = [group.starts(index) for index in range(len(plan.ops))]
        self.starts = torch.tensor(places, dtype=torch.int32, device="cpu")
        self.moves = [
            [
                not (
                    (group.whole[source] and group.whole[index])
                    or (op.local and group.shapes[source] == group.shapes[index] and places[source] == places[index])
                )
                for source in op.inputs
            ]
            for index, op in enumerate(plan.ops)
        ]
        self.whole = [
            group.whole[index] and all(group.whole[source] for source in op.inputs) for index, op in enumerate(plan.ops)
        ]


class _Chunk:
    """Windows that run together, and their tiles.

    Attributes:
        images: (B,), which image each window covers.
        starts: (steps, 2, B).
        tiles: Of the steps that are still read.
        stored: Steps whose tiles lie in their buffer.
    """

    def __init__(self, prepared: _Prepared, pairs: Sequence[Pair], device: torch.device) -> None:
        windows, self.images = torch.tensor(pairs, device="cpu").unbind(dim=1)
        self.starts = prepared.starts[:, :, windows].to(device, torch.int64)
        self.images = self.images.to(device)
        self.tiles: dict[int, Tensor] = {}
        self.stored: set[int] = set()


class Engine:
    """Runs the windows of a plan over images whose clean maps are known.

    Args:
        program: Of the model.
        plan: Of the lattice.
        maps: Each step's output for the images, whole (N, …).
        capacity: The most windows that run at once.
        cover: (1, C, 1, 1).
    """

    def __init__(self, program: Program, plan: Plan, maps: Sequence[Tensor], capacity: int, cover: Tensor) -> None:
        self.plan = plan
        self._program = program
        self._image = maps[0]
        self._cover = cover[0]
        self._prepared: _Prepared | None = None
        steps = program.steps
        self._last = {source: index for index, step in enumerate(steps) for source in step.inputs}
        self._last.update(dict.fromkeys(program.exits.values(), len(steps)))
        self._fixed = {i for index, step in enumerate(steps) if step.view for i in (index, *step.inputs)}
        moving = {source for source in program.exits.values() if not all(g.whole[source] for g in plan.groups)}
        for group in plan.groups:
            for step, moves in zip(steps, self._prepare(group).moves, strict=True):
                moving |= {source for source, moved in zip(step.inputs, moves, strict=True) if moved}
        self._rows = {source: self._buffer(source, maps[source], capacity) for source in moving}

    def _prepare(self, group: Group) -> _Prepared:
        """Of the group that runs; groups run one after the other."""
        if self._prepared is None or self._prepared.group is not group:
            self._prepared = _Prepared(self.plan, group)
        return self._prepared

    def _buffer(self, source: int, clean: Tensor, capacity: int) -> Tensor:
        """Rows of channels: what lies outside, the clean maps, room for tiles."""
        maps = clean.permute(0, 2, 3, 1) if self._program.steps[source].layout == "nchw" else clean
        places, channels = maps.shape[:3].numel(), maps.shape[3]
        room = capacity * max(group.shapes[source][0] * group.shapes[source][1] for group in self.plan.groups)
        rows = clean.new_empty((_CLEAN + places + room, channels))
        rows[_ZERO], rows[_LOWEST] = 0, -torch.inf
        rows[_CLEAN : _CLEAN + places].view_as(maps).copy_(maps)
        return rows

    def run(self, group: Group, pairs: Sequence[Pair]) -> dict[fx.Node, Tensor]:
        """What the rest of the network reads for covered images: whole maps of the program's exits.

        Args:
            group: Of the plan.
            pairs: For each, the position in ``group.windows`` and the image.
        """
        prepared = self._prepare(group)
        chunk = _Chunk(prepared, pairs, self._image.device)
        tiles = chunk.tiles
        tiles[0] = self._covered(group, pairs)
        for index, step in enumerate(self._program.steps[1:], start=1):
            given = [
                self._gathered(chunk, group, index, source) if moves else tiles[source]
                for source, moves in zip(step.inputs, prepared.moves[index], strict=True)
            ]
            first = step.inputs[0]
            mine = prepared.moves[index][0] or (self._last[first] == index and first not in self._fixed)
            if step.inplace is not None and mine:
                tiles[index] = step.inplace(*given)
            else:
                tiles[index] = (step.whole if prepared.whole[index] else step.call)(*given)
            for source in set(step.inputs):
                if self._last[source] == index:
                    del tiles[source]
        return {
            node: tiles[source] if group.whole[source] else self._pasted(chunk, group, source)
            for node, source in self._program.exits.items()
        }

    def _covered(self, group: Group, pairs: Sequence[Pair]) -> Tensor:
        """The image's tiles (B, C, h, w) with their windows covered."""
        height, width = group.shapes[0]
        tops, lefts = group.starts(0)
        windows = group.windows
        tiles = channels_first(self._image.new_empty((len(pairs), height, width, len(self._cover))))
        for tile, (window, image) in zip(tiles, pairs, strict=True):
            top, left = tops[window], lefts[window]
            row, column = windows[window]
            (r0, r1), (c0, c1) = self.plan.lattice.rows[row], self.plan.lattice.columns[column]
            if (r1 - r0, c1 - c0) != (height, width):
                tile.copy_(self._image[image, :, top : top + height, left : left + width])
            tile[:, r0 - top : r1 - top, c0 - left : c1 - left] = self._cover
        return tiles

    def _pasted(self, chunk: _Chunk, group: Group, source: int) -> Tensor:
        """The whole map of a source: the clean one, with the tile in its place."""
        layout = self._program.steps[source].layout
        height, width = self.plan.ops[source].size
        tall, wide = group.shapes[source]
        images, channels = len(self._image), self._rows[source].shape[1]
        clean = self._rows[source][_CLEAN : _CLEAN + images * height * width].view(images, height, width, channels)
        maps = clean.index_select(0, chunk.images)
        tile = chunk.tiles[source].permute(0, 2, 3, 1) if layout == "nchw" else chunk.tiles[source]
        device = maps.device
        top, left = chunk.starts[source].reshape(2, len(maps), 1, 1)
        r = (
            top
            + torch.arange(tall, device=device)[:, None]
            + torch.arange(len(maps), device=device).view(-1, 1, 1) * height
        )
        where = r * width + (left + torch.arange(wide, device=device))
        maps.view(-1, channels).index_copy_(0, where.view(-1), tile.reshape(-1, channels))
        return channels_first(maps) if layout == "nchw" else maps

    def _gathered(self, chunk: _Chunk, group: Group, index: int, source: int) -> Tensor:
        """All that a step reads of a source for its tile."""
        rows, layout = self._rows[source], self._program.steps[source].layout
        height, width = self.plan.ops[source].size
        tall, wide = group.shapes[source]
        count, places = len(chunk.images), len(self._image) * height * width
        if source not in chunk.stored:
            tile = chunk.tiles[source].permute(0, 2, 3, 1) if layout == "nchw" else chunk.tiles[source]
            first = _CLEAN + places
            rows[first : first + count * tall * wide].view(count, tall, wide, -1).copy_(tile)
            chunk.stored.add(source)
        op, shape, starts = self.plan.ops[index], group.shapes[index], chunk.starts[index]
        fill = _LOWEST if self._program.steps[index].fill < 0 else _ZERO
        r, c = _span(op, 0, starts[0], shape[0])[:, :, None], _span(op, 1, starts[1], shape[1])[:, None, :]
        top, left = chunk.starts[source].reshape(2, count, 1, 1)
        own_r, own_c = r - top, c - left
        hit = ((own_r >= 0) & (own_r < tall)) & ((own_c >= 0) & (own_c < wide))
        number = torch.arange(count, device=rows.device)[:, None, None]
        where = torch.where(
            hit,
            (_CLEAN + places + number * (tall * wide) + own_r * wide) + own_c,
            (_CLEAN + chunk.images[:, None, None] * (height * width) + r * width) + c,
        )
        inside = ((r >= 0) & (r < height)) & ((c >= 0) & (c < width))
        where = torch.where(inside, where, fill)
        found = rows.index_select(0, where.view(-1)).view(*where.shape, -1)
        return channels_first(found) if layout == "nchw" else found


def _span(op: Op, axis: int, start: Tensor, size: int) -> Tensor:
    """Where along an axis an op reads for its outputs from ``start`` on: (B, span)."""
    kernel, stride, dilation, padding = op.kernel[axis], op.stride[axis], op.dilation[axis], op.padding[axis]
    span, unit = (size, stride) if kernel == 1 else ((size - 1) * stride + dilation * (kernel - 1) + 1, 1)
    return (start * stride - padding)[:, None] + torch.arange(span, device=start.device) * unit
