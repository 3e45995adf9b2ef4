"""Grad-CAM on the places of the inputs, by plain backwards of a forward whose graph goes back to them."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from attribution import layers
from attribution.attributor import Run
from attribution.techniques.cam.family import MODES
from attribution.techniques.gradient.guided_grad_cam import GuidedGradCAM
from attribution_hooks.capture import Captured
from attribution_hooks.gradient.gradients import wide


def enlarged(run: Run[GuidedGradCAM], caught: Captured, columns: Sequence[Tensor]) -> dict[str, Tensor]:
    """By explained input upsample(ReLU(Σ over channels of mean gradient · activation)), (N, T, 1, *places).

    Args:
        run: Of the call.
        caught: The layer, with the edge of the graph where it stands.
        columns: The scores (N,) of each target, with graph, which is kept.

    Raises:
        LayerError: The layer does not lie on the inputs, or a score does not depend on it.
    """
    layer = run.technique.layer
    grid = run.technique.read(tuple(caught[layer].shape), run.model, run.inputs)
    run.notes.update(run.technique.cam.notes({layer: grid}, run.inputs))
    activation, cams = grid.map(caught[layer]), []
    activation = activation.to(wide(activation))
    for column in columns:
        (gradient,) = torch.autograd.grad(column.sum(), caught.edges[layer], retain_graph=True, allow_unused=True)
        if gradient is None:
            raise layers.no_influence(layer)
        cams.append(torch.einsum("nd,nd...->n...", grid.mean(gradient.to(activation)), activation).relu())
    stacked, mode = torch.stack(cams, dim=1), MODES[len(grid.places)]
    sizes = {name: run.inputs.places(name) for name in run.inputs.explained}
    large = {name: F.interpolate(stacked, size=size, mode=mode, align_corners=False) for name, size in sizes.items()}
    return {name: map_.unsqueeze(2) for name, map_ in large.items()}
