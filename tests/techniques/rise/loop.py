"""RISE in plain loops over masks and places, in float64; and what its masks are on average."""

from collections.abc import Callable, Sequence
from itertools import product
from math import ceil

import numpy as np
import torch
from torch import Tensor

from attribution.techniques.perturbation.random_masks import RandomMasks


def weight(place: int, size: int, cells: int, cell: int) -> float:
    """How much of a cell a place of the enlarged grid reads: linear, half-pixel centres, clamped at the border."""
    length = (cells + 1) * size
    at = min(max((place + 0.5) * cells / length - 0.5, 0.0), cells - 1.0)
    return max(0.0, 1.0 - abs(at - cell))


def mask(drawn: RandomMasks, index: int) -> Tensor:
    """(*places), place by place and cell by cell."""
    bits, offsets = drawn.bits[index], drawn.offsets[index].tolist()
    found = np.zeros(drawn.places)
    for at in np.ndindex(*drawn.places):
        for cell in np.ndindex(*bits.shape):
            part = float(bits[cell])
            for axis, places in enumerate(drawn.places):
                size = ceil(places / bits.shape[axis])
                part *= weight(at[axis] + offsets[axis], size, bits.shape[axis], cell[axis])
            found[at] += part
    return torch.from_numpy(found)


def rise(
    score: Callable[[Tensor], Sequence[float]], x: Tensor, cover: Tensor, drawn: RandomMasks, keep: float
) -> tuple[Tensor, Tensor]:
    """(T, *places) of one example, and the standard errors; one forward for each mask."""
    rows = []
    for index in range(len(drawn)):
        m = mask(drawn, index)
        rows.append([s * m / keep for s in score((x * m + cover * (1 - m))[None])])
    maps, errors = [], []
    for column in zip(*rows, strict=True):
        total = sum(column, torch.zeros(drawn.places, dtype=torch.float64))
        mean = total / len(rows)
        spread = sum(((each - mean) ** 2 for each in column), torch.zeros(drawn.places, dtype=torch.float64))
        maps.append(mean)
        errors.append((spread / (len(rows) - 1) / len(rows)).sqrt())
    return torch.stack(maps), torch.stack(errors)


def second_moments(places: tuple[int, ...], cells: tuple[int, ...], keep: float) -> Tensor:
    """E[M[p] · M[q]] over all offsets and bits, (P, P): keep² where no cell is shared."""
    sizes = [ceil(p / c) for p, c in zip(places, cells, strict=True)]
    offsets = list(product(*map(range, sizes)))
    total = torch.zeros((int(np.prod(places)),) * 2, dtype=torch.float64)
    for offset in offsets:
        read = torch.ones((1, 1), dtype=torch.float64)
        for axis, places_ in enumerate(places):
            side = torch.tensor(
                [[weight(p + offset[axis], sizes[axis], cells[axis], c) for c in range(cells[axis])]
                 for p in range(places_)], dtype=torch.float64)  # fmt: skip
            read = torch.kron(read, side)
        total += keep**2 + keep * (1 - keep) * read @ read.T
    return total / len(offsets)
