"""Tiles of every layer, their surroundings read from the clean image."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, fx

from attribution.upload import upload
from attribution_hooks.occlusion.graph import Program
from attribution_hooks.occlusion.numbers import Area, Array, Reading, Readings
from attribution_hooks.occlusion.plan import Group, Plan
from attribution_hooks.occlusion.steps import channels_first

Pair = tuple[int, int]


class _Chunk:
    """Windows that run together, and their tiles.

    Attributes:
        rows: (2, B, Σ heights), the numbers of the group's readings in the tiles and in the clean maps.
        columns: (2, B, Σ widths), likewise.
        tiles: Of the steps that are still read.
        stored: Steps whose tiles lie in their buffer.
    """

    def __init__(self, rows: Array, columns: Array, device: torch.device) -> None:
        sent = upload(np.concatenate([rows.reshape(-1), columns.reshape(-1)]), device)
        self.rows = sent[: rows.size].view(rows.shape)
        self.columns = sent[rows.size :].view(columns.shape)
        self.tiles: dict[int, Tensor] = {}
        self.stored: set[int] = set()


class Engine:
    """Runs the windows of a plan over images whose clean maps are known.

    Args:
        program: Of the model.
        plan: Of the lattice.
        readings: Of each group of the plan.
        maps: Each step's output for the images, whole (N, …).
        capacity: The most windows that run at once.
        cover: (1, C, 1, 1).
    """

    def __init__(
        self,
        program: Program,
        plan: Plan,
        readings: Sequence[Readings],
        maps: Sequence[Tensor],
        capacity: int,
        cover: Tensor,
    ) -> None:
        self.plan = plan
        self._program = program
        self._device = maps[0].device
        self._readings = {id(group): reading for group, reading in zip(plan.groups, readings, strict=True)}
        steps = program.steps
        self._last = {source: index for index, step in enumerate(steps) for source in step.inputs}
        self._last.update(dict.fromkeys(program.exits.values(), len(steps)))
        self._fixed = {i for index, step in enumerate(steps) if step.view for i in (index, *step.inputs)}
        areas: dict[int, list[Area]] = {}
        room: dict[int, int] = {0: 1}
        for of_group in readings:
            for reading in of_group.all:
                if reading.area not in (known := areas.setdefault(reading.source, [])):
                    known.append(reading.area)
            for source in of_group.stored:
                height, width = of_group.group.shapes[source]
                room[source] = max(room.get(source, 0), capacity * height * width)
        self._first: dict[tuple[int, Area | None], int] = {}
        self._rows = {
            source: self._buffer(source, found, maps[source], room[source]) for source, found in areas.items()
        }
        if 0 in self._rows:
            self._rows[0][-1] = cover.view(-1)

    def _buffer(self, source: int, areas: Sequence[Area], clean: Tensor, room: int) -> Tensor:
        """Rows of channels: the clean maps with what lies outside of them, then room for tiles."""
        maps = clean.permute(0, 2, 3, 1) if self._program.steps[source].layout == "nchw" else clean
        images, height, width, channels = maps.shape
        rows = clean.new_empty((images * sum(area.places for area in areas) + room, channels))
        first = 0
        for area in areas:
            self._first[source, area] = first
            bordered = rows[first : first + images * area.places].view(images, *area.size, channels)
            if area.size != (height, width):
                bordered.fill_(area.fill)
            top, left = area.before
            bordered[:, top : top + height, left : left + width].copy_(maps)
            first += images * area.places
        self._first[source, None] = first
        return rows

    def run(self, group: Group, pairs: Sequence[Pair]) -> dict[fx.Node, Tensor]:
        """What the rest of the network reads for covered images: whole maps of the program's exits.

        Args:
            group: Of the plan.
            pairs: For each, the position in ``group.windows`` and the image.
        """
        readings = self._readings[id(group)]
        begin = np.array([(self._first[r.source, None], self._first[r.source, r.area]) for r in readings.all])
        chunk = _Chunk(*readings.numbers(begin.T, pairs), self._device)
        tiles = chunk.tiles
        if readings.image is not None:
            tiles[0] = self._gathered(chunk, readings, readings.image)
        for index, step in enumerate(self._program.steps[1:], start=1):
            moves = readings.moves[index]
            given = [
                self._gathered(chunk, readings, reading) if reading is not None else tiles[source]
                for source, reading in zip(step.inputs, moves, strict=True)
            ]
            first = step.inputs[0]
            mine = moves[0] is not None or (self._last[first] == index and first not in self._fixed)
            if step.inplace is not None and mine:
                tiles[index] = step.inplace(*given)
            else:
                tiles[index] = (step.whole if readings.whole[index] else step.call)(*given)
            for source in set(step.inputs):
                if self._last[source] == index:
                    tiles.pop(source, None)
        return {
            node: self._gathered(chunk, readings, readings.exits[source]) if source in readings.exits else tiles[source]
            for node, source in self._program.exits.items()
        }

    def _gathered(self, chunk: _Chunk, readings: Readings, reading: Reading) -> Tensor:
        """All that a step reads of a source for its tile."""
        source = reading.source
        rows, layout = self._rows[source], self._program.steps[source].layout
        if source and source not in chunk.stored:
            tile = chunk.tiles[source].permute(0, 2, 3, 1) if layout == "nchw" else chunk.tiles[source]
            first = self._first[source, None]
            rows[first : first + tile.shape[:3].numel()].view(tile.shape).copy_(tile)
            chunk.stored.add(source)
        places = chunk.rows[:, :, reading.rows, None] + chunk.columns[:, :, None, reading.columns]
        where = torch.maximum(places[0], places[1])
        found = rows.index_select(0, where.view(-1)).view(*where.shape, -1)
        return channels_first(found) if layout == "nchw" else found
