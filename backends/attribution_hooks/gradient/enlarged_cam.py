"""Grad-CAM on the places of the inputs, by plain backwards of a forward whose graph goes back to them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attribution import layers
from attribution.attributor import Run
from attribution.techniques.cam.family import MODES
from attribution.techniques.cam.tokens import Grid
from attribution_hooks.capture import Captured
from attribution_hooks.gradient.sums import wide


def enlarged(run: Run[Any], name: str, caught: Captured, grid: Grid, columns: Sequence[Tensor]) -> dict[str, Tensor]:
    """By explained input upsample(ReLU(Σ over channels of mean gradient · activation)), (N, T, 1, *places).

    Args:
        run: Of the call.
        name: The layer.
        caught: It, with the edge of the graph where it stands.
        grid: How its output covers the inputs, which have as many axes of places.
        columns: The scores (N,) of each target, with graph, which is kept.

    Raises:
        LayerError: A score does not depend on the layer.
    """
    activation, cams = grid.map(caught[name]), []
    activation = activation.to(wide(activation))
    for column in columns:
        (gradient,) = torch.autograd.grad(column.sum(), caught.edges[name], retain_graph=True, allow_unused=True)
        if gradient is None:
            raise layers.no_influence(name)
        cams.append(torch.einsum("nd,nd...->n...", grid.mean(gradient.to(activation)), activation).relu())
    stacked, mode = torch.stack(cams, dim=1), MODES[len(grid.places)]
    sizes = {name: run.inputs.places(name) for name in run.inputs.explained}
    large = {name: F.interpolate(stacked, size=size, mode=mode, align_corners=False) for name, size in sizes.items()}
    return {name: map_.unsqueeze(2) for name, map_ in large.items()}
