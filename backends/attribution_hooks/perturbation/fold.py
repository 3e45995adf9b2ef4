"""From windows to pixels."""

import numpy as np
from torch import Tensor

from attribution.running.upload import upload
from attribution.techniques.perturbation.occlusion import Lattice
from attribution_hooks.covers import inside

AT_ONCE = 2**24
"""Pixels of maps in float64 at once."""


def fold(deltas: Tensor, lattice: Lattice, size: tuple[int, int]) -> Tensor:
    """Each pixel's mean over the windows that cover it: (windows, N, T) → (N, T, H, W); 0 where none does.

    A pixel is covered by the windows whose row and whose column cover it. So its mean is one over rows of means over
    columns: two products with what each row and column of the lattice gives each pixel. They are taken in float64,
    since products of float32 may be rounded as TF32.
    """
    wide = np.float32 if deltas.device.type == "mps" else np.float64
    height, width = size
    rows, columns = (
        covered / covered.sum(axis=0).clip(min=1)
        for covered in (inside(lattice.rows, height), inside(lattice.columns, width))
    )
    both = upload(np.concatenate([rows.reshape(-1), columns.reshape(-1)]).astype(wide), deltas.device)
    down, across = both[: rows.size].view(rows.shape).T, both[rows.size :].view(columns.shape)
    flat = deltas.reshape(len(lattice.rows), len(lattice.columns), -1)
    maps = deltas.new_empty((flat.shape[2], height, width))
    step = max(1, AT_ONCE // (height * width))
    for first in range(0, len(maps), step):
        part = flat[:, :, first : first + step].to(both.dtype)
        along = (down @ part.reshape(len(rows), -1)).view(height, len(columns), -1)
        maps[first : first + step] = (along.permute(2, 0, 1).reshape(-1, len(columns)) @ across).view(-1, *size)
    return maps.view(*deltas.shape[1:], *size)
