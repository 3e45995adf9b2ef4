"""Tiles of every layer, their surroundings read from the clean image."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, fx

from attribution.running.upload import upload
from attribution_hooks.covers import Covering
from attribution_hooks.incremental.axis import Array
from attribution_hooks.incremental.graph import Program
from attribution_hooks.incremental.numbers import Area, Reading, Readings
from attribution_hooks.incremental.plan import Group, Plan
from attribution_hooks.incremental.steps import channels_first

Pair = tuple[int, int]


class _Chunk:
    """Windows that run together, and their tiles.

    Attributes:
        rows: (2, B, Σ heights), the numbers of the group's readings in the tiles and in the clean maps.
        columns: (2, B, Σ widths), likewise.
        images: (B,).
        exits: For each exit that is less than a map, the rows (B, h) and columns (B, w) of tiles in B whole maps.
        tiles: Of the steps that are still read.
        stored: Steps whose tiles lie in their buffer.
        numbers: (B,), of the windows in the lattice; where places bear numbers.
    """

    numbers: Tensor

    def __init__(self, readings: Readings, first: Array, pairs: Sequence[Pair], device: torch.device) -> None:
        images, exits = readings.tiles(pairs)
        made = [*readings.numbers(first, pairs), images, *(numbers for both in exits for numbers in both)]
        sent = upload(np.concatenate([numbers.reshape(-1) for numbers in made]), device)
        ends = np.cumsum([numbers.size for numbers in made]).tolist()
        parts = [sent[end - n.size : end].view(n.shape) for end, n in zip(ends, made, strict=True)]
        self.rows, self.columns, self.images = parts[:3]
        self.exits = dict(zip(readings.exits, zip(parts[3::2], parts[4::2], strict=True), strict=True))
        self.tiles: dict[int, Tensor] = {}
        self.stored: set[int] = set()


def _bordered(labels: Tensor, areas: Sequence[Area]) -> dict[Area, Tensor]:
    """The number of each place of a clean image, in each of the image's areas; −1 in the border."""
    found = {}
    for area in areas:
        bordered = labels.new_full(area.size, -1)
        (top, left), (height, width) = area.before, labels.shape
        bordered[top : top + height, left : left + width] = labels
        found[area] = bordered.flatten()
    return found


class Engine:
    """Runs the windows of a plan over images whose clean maps are known.

    Args:
        program: Of the model.
        plan: Of the lattice.
        readings: Of each group of the plan.
        maps: Each step's output for the images, whole (N, …).
        capacity: The most windows that run at once.
        covers: One value per channel, (1, C, 1, 1), of all that a window is, or of the places that bear its number.
    """

    def __init__(
        self,
        program: Program,
        plan: Plan,
        readings: Sequence[Readings],
        maps: Sequence[Tensor],
        capacity: int,
        covers: Covering,
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
            self._rows[0][-1] = covers.cover.view(-1)
        self._labels = {} if covers.labels is None else _bordered(covers.labels, areas.get(0, ()))
        exits = {source for of_group in readings for source in of_group.exits}
        self._clean = {source: self._channels_last(source, maps[source]).contiguous() for source in exits}

    def _channels_last(self, source: int, maps: Tensor) -> Tensor:
        return maps.permute(0, 2, 3, 1) if self._program.steps[source].layout == "nchw" else maps

    def _buffer(self, source: int, areas: Sequence[Area], clean: Tensor, room: int) -> Tensor:
        """Rows of channels: the clean maps with what lies outside of them, then room for tiles."""
        maps = self._channels_last(source, clean)
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
            pairs: For each, its place among the crossings of the group's bands, and the image.
        """
        readings = self._readings[id(group)]
        begin = [(self._first[r.source, None], self._first[r.source, r.area]) for r in readings.all]
        chunk = _Chunk(readings, np.array(begin, dtype=np.int64).reshape(-1, 2).T, pairs, self._device)
        if self._labels:
            numbers = dict(zip(group.places, self.plan.lattice.numbers(group.windows), strict=True))
            chunk.numbers = upload(np.array([numbers[place] for place, _ in pairs]), self._device)
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
            node: self._completed(chunk, source) if source in chunk.exits else tiles[source]
            for node, source in self._program.exits.items()
        }

    def _gathered(self, chunk: _Chunk, readings: Readings, reading: Reading) -> Tensor:
        """All that a step reads of a source for its tile."""
        source = reading.source
        rows, layout = self._rows[source], self._program.steps[source].layout
        if source and source not in chunk.stored:
            tile = self._channels_last(source, chunk.tiles[source])
            first = self._first[source, None]
            rows[first : first + tile.shape[:3].numel()].view(tile.shape).copy_(tile)
            chunk.stored.add(source)
        places = chunk.rows[:, :, reading.rows, None] + chunk.columns[:, :, None, reading.columns]
        where = torch.maximum(places[0], places[1])
        if not source and self._labels:
            labels = self._labels[reading.area][(places[1] - self._first[0, reading.area]) % reading.area.places]
            where = torch.where(labels == chunk.numbers[:, None, None], where, places[1])
        found = rows.index_select(0, where.view(-1)).view(*where.shape, -1)
        return channels_first(found) if layout == "nchw" else found

    def _completed(self, chunk: _Chunk, source: int) -> Tensor:
        """A source's whole maps: the clean ones, with the tiles in their places."""
        found = self._clean[source].index_select(0, chunk.images)
        rows, columns = chunk.exits[source]
        tile = self._channels_last(source, chunk.tiles[source]).contiguous()
        found.flatten(0, 1).index_put_((rows[:, :, None], columns[:, None, :]), tile)
        return channels_first(found) if self._program.steps[source].layout == "nchw" else found
