"""Eigen-CAM by Captum's ``LayerActivation`` and a singular value decomposition."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.inputs.inputs import Inputs
from attribution.technique import Maps
from attribution.techniques import EigenCAM
from attribution.techniques.cam.eigen_cam import SHARES
from attribution_captum.activations import layer_values
from attribution_captum.layer import ran


class CaptumEigenCAM(Attributor[EigenCAM]):
    """`EigenCAM` from one full forward of ``LayerActivation``, image by image."""

    technique_type: ClassVar[type[EigenCAM]] = EigenCAM
    backend: ClassVar[str] = "captum"

    def image_bytes(self, model: nn.Module, technique: EigenCAM, inputs: Inputs) -> int:
        """What is widest in a forward without graph, and the layers, their centred copies and singular vectors."""
        kept = sum(stop.bytes for stop in ran(model, technique.layers, inputs))
        return 2 * layers.peak_bytes(model, inputs) + 3 * kept

    def compute(self, run: Run[EigenCAM]) -> Maps:
        """(N, 1, *places) for each layer."""
        values = layer_values(run, run.technique.layers)
        grids = {
            name: run.technique.grid(name, tuple(value.shape), run.model, run.inputs) for name, value in values.items()
        }
        maps: Maps = {}
        for name in run.technique.layers:
            with torch.no_grad(), torch.autocast(run.inputs.device.type, enabled=False):
                found = [_component(each, run.technique.centred) for each in grids[name].map(values[name])]
            maps[name] = torch.stack([map_ for map_, _ in found])[:, None]
            run.extras[f"{SHARES} {name}"] = torch.stack([shares for _, shares in found])
        for key, note in run.technique.notes(grids, run.inputs).items():
            run.note(key, note)
        return maps


def _component(activation: Tensor, centred: bool) -> tuple[Tensor, Tensor]:
    """(D, *places) → the projection, and the shares of two components; v by channels, from the decomposition."""
    rows = activation.to(torch.promote_types(activation.dtype, torch.float32)).flatten(1)
    if not rows.isfinite().all():  # of which there is no decomposition; the core tells of NaN
        return rows.new_full(activation.shape[1:], torch.nan), rows.new_zeros(2)
    if centred:
        rows = rows - rows.sum(dim=1, keepdim=True) / rows.shape[1]
    left, sizes, _ = torch.linalg.svd(rows, full_matrices=False)
    direction = left[:, 0]
    map_ = torch.einsum("k,kp->p", direction, rows)
    leaning = direction.sum()
    if leaning.abs() <= 64 * torch.finfo(rows.dtype).eps * len(rows) ** 0.5:
        leaning = max(map_.min(), map_.max(), key=abs)
    parts = sizes.square() / max(sizes.square().sum(), torch.finfo(rows.dtype).tiny)
    two = torch.cat([parts, parts.new_zeros(1)])[:2]
    return map_.reshape(activation.shape[1:]) * (-1 if leaning < 0 else 1), two
