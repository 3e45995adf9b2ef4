"""Inputs with windows covered, all of a batch at once."""

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from attribution.attributor import Run
from attribution.inputs.inputs import Inputs
from attribution.running.upload import upload
from attribution.techniques.perturbation.lattice import Lattice, inside


class Covering(Protocol):
    """Covers parts of inputs, one part of each row.

    Attributes:
        cover: What covers: as many axes as the inputs, each of their size or 1.
        labels: (H, W), the number of the part that each place belongs to; ``None`` where a part is all of its window.
    """

    cover: Tensor
    labels: Tensor | None

    def of(self, windows: Tensor, examples: Tensor) -> Tensor:
        """(B, …): these examples with one part each covered; both (B,)."""


class Covers:
    """Covers windows of a lattice, any number of them by one ``where``.

    Args:
        inputs: (N, F) or (N, C, *places).
        cover: As many axes, each of the input's size or 1; (1, C, 1, 1) for one value per channel of images.
        lattice: The windows.
        channels: Which are covered; ``None``: all.
    """

    def __init__(
        self, inputs: Tensor, cover: Tensor, lattice: Lattice, channels: tuple[int, ...] | None = None
    ) -> None:
        self.cover = cover
        self.labels: Tensor | None = None
        self._inputs = inputs
        sizes = inputs.shape[inputs.ndim - len(lattice.axes) :]
        sides = [inside(intervals, size) for intervals, size in zip(lattice.axes, sizes, strict=True)]
        if channels is not None:
            sides.append(np.isin(np.arange(inputs.shape[1]), channels)[None])
        sent = upload(np.concatenate([side.reshape(-1) for side in sides]), inputs.device)
        parts = [
            part.view(side.shape) for part, side in zip(sent.split([side.size for side in sides]), sides, strict=True)
        ]
        self._channels = None if channels is None else parts.pop().view(1, -1, *[1] * len(sizes))
        self._axes = parts
        self._kept = None if lattice.kept is None else upload(np.array(lattice.kept), inputs.device)

    def of(self, windows: Tensor, examples: Tensor) -> Tensor:
        """(B, …): these examples with one window each covered; both (B,)."""
        windows, examples = windows.to(self._inputs.device), examples.to(self._inputs.device)  # from the logits'
        covered = self._masks(windows if self._kept is None else self._kept[windows])
        shown, cover = (each if len(each) == 1 else each[examples] for each in (self._inputs, self.cover))
        return torch.where(covered, cover, shown)

    def _masks(self, crossings: Tensor) -> Tensor:
        """What each of the lattice's crossings covers, (B, 1 or C, *places)."""
        axes = len(self._axes)
        covered: Tensor | None = self._channels
        for axis in reversed(range(axes)):
            side = self._axes[axis]
            at = crossings if axis == 0 else crossings % len(side)
            if axis:
                crossings = crossings.div(len(side), rounding_mode="floor")
            shape = [1] * self._inputs.ndim
            shape[0], shape[axis - axes] = len(at), side.shape[1]
            along: Tensor = side[at].view(shape)
            covered = along if covered is None else along & covered
        assert covered is not None  # a lattice has an axis
        return covered


class SegmentCovers:
    """Covers segments, any shape of places.

    Args:
        inputs: (N, F) or (N, C, *places).
        cover: As many axes, each of the input's size or 1.
        labels: (1 or N, *places), the number of each place's segment.
    """

    def __init__(self, inputs: Tensor, cover: Tensor, labels: Tensor) -> None:
        self.cover, self._inputs, self._labels = cover, inputs, labels
        self.labels = labels[0] if len(labels) == 1 and labels.ndim == 3 else None

    def of(self, windows: Tensor, examples: Tensor) -> Tensor:
        """(B, …): these examples with one segment each covered; both (B,)."""
        windows, examples = windows.to(self._inputs.device), examples.to(self._inputs.device)
        shown, cover, labels = (
            each if len(each) == 1 else each[examples] for each in (self._inputs, self.cover, self._labels)
        )
        covered = labels == windows.view(-1, *[1] * (labels.ndim - 1))
        return torch.where(covered if shown.ndim == labels.ndim else covered[:, None], cover, shown)


def beside(run: Run[Any], name: str, covered: Tensor, examples: Tensor) -> Tensor | Inputs:
    """What the model is shown: a covered input, and the other inputs of the same examples as they are.

    Args:
        run: Of the call.
        name: The input that is covered.
        covered: (B, …), in its place.
        examples: (B,), which each row shows.
    """
    if len(run.inputs.explained) == 1:
        return covered
    return run.inputs[examples.to(run.inputs.device)].replaced({name: covered})
