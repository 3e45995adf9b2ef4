"""From windows to places."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from attribution.running.upload import upload
from attribution.techniques.perturbation.lattice import Lattice, inside

Array = np.ndarray[Any, np.dtype[Any]]

AT_ONCE = 2**24
"""Places of maps in float64 at once."""


def fold(deltas: Tensor, lattice: Lattice, places: Sequence[int]) -> Tensor:
    """Each place's mean over the windows that cover it: (windows, N, T) → (N, T, *places); 0 where none does.

    A place is covered by the windows whose interval covers it along every axis. So where all crossings are run, its
    mean is one over the first axis of means over the second, and so on: one product per axis with what each interval
    gives each place. Where some are left out, the sums are such products, and are divided by how many there are. The
    products are taken in float64, since those of float32 may be rounded as TF32.
    """
    wide = np.float32 if deltas.device.type == "mps" else np.float64
    sides = [inside(intervals, size).astype(wide) for intervals, size in zip(lattice.axes, places, strict=True)]
    flat, counts = deltas.reshape(len(deltas), -1), None
    if lattice.kept is None:
        sides = [side / side.sum(axis=0).clip(min=1) for side in sides]
    else:
        crossings = np.zeros(tuple(map(len, lattice.axes)), wide)
        crossings.reshape(-1)[list(lattice.kept)] = 1
        counts = upload(_counts(crossings, sides).clip(min=1), deltas.device)
        grid = flat.new_zeros((crossings.size, flat.shape[1]))
        flat = grid.index_copy_(0, upload(np.array(lattice.kept), deltas.device), flat)
    flat = flat.reshape(*map(len, lattice.axes), -1)
    sent = upload(np.concatenate([side.reshape(-1) for side in sides]), deltas.device)
    parts = [part.view(side.shape) for part, side in zip(sent.split([s.size for s in sides]), sides, strict=True)]
    maps = deltas.new_empty((flat.shape[-1], *places))
    step = max(1, AT_ONCE // int(np.prod(places)))
    for first in range(0, len(maps), step):
        part = flat[..., first : first + step].to(sent.dtype)
        for side in parts:  # the first axis becomes places, and the last
            rest = part.shape[1:]
            part = (side.T @ part.reshape(len(side), -1)).view(-1, *rest).movedim(0, -1)
        maps[first : first + step] = part if counts is None else part / counts
    return maps.view(*deltas.shape[1:], *places)


def _counts(crossings: Array, sides: Sequence[Array]) -> Array:
    """How many of the windows that are run cover each place."""
    for side in sides:
        crossings = np.tensordot(crossings, side, axes=(0, 0))
    return crossings
