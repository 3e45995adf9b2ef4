"""What windows change in a network, found by NaN, and whether a plan's intervals say the same."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from torch import nn

from attribution.lowered.tracing import trace
from attribution.techniques.perturbation.lattice import Interval, Lattice
from attribution_hooks.incremental.graph import build
from attribution_hooks.incremental.plan import Op, reach


def bounds(changed: np.ndarray, axis: int) -> Interval | None:
    along = np.flatnonzero(changed.any(axis=1 - axis))
    return (int(along[0]), int(along[-1]) + 1) if len(along) else None


def changed_by(model: nn.Module, lattice: Lattice) -> tuple[list[Op], list[np.ndarray]]:
    """A model's ops, and what each window changes in it: NaN goes wherever a covered pixel is read.

    In float64, whose convolutions read no more than their formula says.
    """
    size = lattice.rows[-1][1], lattice.columns[-1][1]
    model = model.double().eval()
    images = torch.rand((1, 3, *size), dtype=torch.float64).repeat(len(lattice.windows), 1, 1, 1)
    for image, ((top, bottom), (left, right)) in zip(images, lattice.windows, strict=True):
        image[:, top:bottom, left:right] = torch.nan
    with torch.no_grad():
        program, _, _ = build(model, trace(model), torch.rand((1, 3, *size), dtype=torch.float64))
        maps, _ = program.clean(images)
    channels = [1 if step.layout == "nchw" else 3 for step in program.steps]
    return program.ops, [m.isnan().any(dim=c).numpy() for m, c in zip(maps, channels, strict=True)]


def off(ops: Sequence[Op], lattice: Lattice, changed: Sequence[np.ndarray]) -> list[str]:
    """Ops whose reach is not the bounding interval of what changes; where nothing changes, it is one pixel."""
    found = []
    for axis, along in enumerate((lattice.rows, lattice.columns)):
        reaches = [reach(ops, axis, interval) for interval in along]
        for number, window in enumerate(product(range(len(lattice.rows)), range(len(lattice.columns)))):
            for index in range(len(ops)):
                exact, (low, high) = bounds(changed[index][number], axis), reaches[window[axis]][index]
                if (exact is None and high - low != 1) or (exact is not None and exact != (low, high)):
                    found.append(f"op {index}, axis {axis}, window {number}: {(low, high)} for {exact}")
    return found
