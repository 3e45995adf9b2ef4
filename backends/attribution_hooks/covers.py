"""Images with windows covered, all of a batch at once."""

import numpy as np
import torch
from torch import Tensor

from attribution.running.upload import upload
from attribution.techniques.perturbation.occlusion import Interval, Lattice


class Covers:
    """Covers windows of a lattice, any number of them by one ``where``.

    Args:
        inputs: (N, C, H, W).
        cover: (1, C, 1, 1).
        lattice: The windows.
    """

    def __init__(self, inputs: Tensor, cover: Tensor, lattice: Lattice) -> None:
        self.cover = cover
        self._inputs = inputs
        self._across = len(lattice.columns)
        sides = [inside(lattice.rows, inputs.shape[2]), inside(lattice.columns, inputs.shape[3])]
        both = upload(np.concatenate([side.reshape(-1) for side in sides]), inputs.device)
        self._rows = both[: sides[0].size].view(sides[0].shape)
        self._columns = both[sides[0].size :].view(sides[1].shape)

    def of(self, windows: Tensor, images: Tensor) -> Tensor:
        """(B, C, H, W): these images with one window each covered; both (B,)."""
        windows, images = windows.to(self._inputs.device), images.to(self._inputs.device)  # from that of the logits
        rows = self._rows[windows.div(self._across, rounding_mode="floor")]
        covered = rows[:, None, :, None] & self._columns[windows % self._across][:, None, None, :]
        shown = self._inputs if len(self._inputs) == 1 else self._inputs[images]
        return torch.where(covered, self.cover, shown)


def inside(intervals: tuple[Interval, ...], size: int) -> "np.ndarray[tuple[int, int], np.dtype[np.bool_]]":
    """Which pixels along an axis each interval covers: (intervals, size)."""
    ends, at = np.array(intervals), np.arange(size)
    return (at >= ends[:, :1]) & (at < ends[:, 1:])
