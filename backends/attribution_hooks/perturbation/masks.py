"""From bits and offsets to masks."""

import torch
from torch import Tensor

from attribution.running.upload import upload
from attribution.techniques.perturbation.random_masks import RandomMasks, cell


class Masks:
    """Makes some of the masks at a time: a product with a small matrix along each axis.

    Products are taken in float64 where the device has it, since those of float32 may be rounded as TF32.

    Args:
        drawn: All of them, as bits and offsets.
        like: Their device and dtype.
    """

    def __init__(self, drawn: RandomMasks, like: Tensor) -> None:
        self._drawn, self._like = drawn, like
        self._wide = torch.float32 if like.device.type == "mps" else torch.float64
        cells = drawn.bits.shape[1:]
        self._tables = [
            upload(_enlargement(places, s), like.device, self._wide)
            for places, s in zip(drawn.places, cells, strict=True)
        ]

    def made(self, part: slice) -> Tensor:
        """(B, *places), from 0 to 1."""
        masks = upload(self._drawn.bits[part], self._like.device, self._wide)
        offsets = upload(self._drawn.offsets[part], self._like.device)
        for axis, table in enumerate(self._tables):  # the first axis becomes places, and the last
            rest = masks.shape[2:]
            enlarged = torch.bmm(table[offsets[:, axis]], masks.flatten(2) if rest else masks[..., None])
            masks = enlarged.view(len(masks), -1, *rest).movedim(1, -1)
        return masks.to(self._like.dtype).contiguous()


def _enlargement(places: int, cells: int) -> Tensor:
    """(offsets, places, cells): how much of each cell each place reads."""
    size = cell(places, cells)
    length = (cells + 1) * size
    at = ((torch.arange(length, dtype=torch.float64, device="cpu") + 0.5) * cells / length - 0.5).clamp(0, cells - 1)
    weights = (1 - (at[:, None] - torch.arange(cells, device="cpu")).abs()).clamp(min=0)
    return torch.stack([weights[offset : offset + places] for offset in range(size)])
