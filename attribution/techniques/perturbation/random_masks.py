"""Random masks as what they are drawn from: few bits and an offset for each, of a generator of their own."""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class RandomMasks:
    """Grids of bits that are enlarged and shifted.

    Along an axis of H places, a grid of s cells is enlarged to (s + 1) · c places, c = ⌈H / s⌉, linearly and without
    aligned corners: place u reads the grid at (u + ½) · s / ((s + 1) · c) − ½, within 0 and s − 1. Of these places a
    mask has H, from its offset on.

    Attributes:
        bits: (masks, *cells), bools on the host.
        offsets: (masks, axes), each from 0 to c − 1.
        places: Sizes of the axes.
    """

    bits: Tensor
    offsets: Tensor
    places: tuple[int, ...]

    @classmethod
    def drawn(
        cls, masks: int, cells: tuple[int, ...], places: tuple[int, ...], keep: float, seed: int
    ) -> "RandomMasks":
        """Bits that are 1 with probability ``keep``; more masks of a seed begin with the same."""
        source, count = torch.Generator("cpu").manual_seed(seed), prod(cells)
        numbers = torch.rand((masks, count + len(cells)), generator=source, dtype=torch.float64, device="cpu")
        size = torch.tensor([cell(*each) for each in zip(places, cells, strict=True)], device="cpu")
        offsets = (numbers[:, count:] * size).long()
        return cls((numbers[:, :count] < keep).view(masks, *cells), offsets, places)

    def __len__(self) -> int:
        """How many masks there are."""
        return len(self.bits)


def cell(places: int, cells: int) -> int:
    """Places of a cell."""
    return -(-places // cells)
