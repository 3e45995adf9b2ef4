"""Eigen-CAM by a forward that ends at the last layer, and the smaller of two Gram matrices."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from attribution import layers
from attribution.attributor import Attributor, Run
from attribution.errors import LayerError
from attribution.inputs.inputs import Inputs
from attribution.technique import Maps
from attribution.techniques import EigenCAM
from attribution.techniques.cam.eigen_cam import SHARES
from attribution_hooks.capture import capture

_ROUNDING = 64


class HooksEigenCAM(Attributor[EigenCAM]):
    """`EigenCAM` by the eigenvectors of BᵀB or BBᵀ, whichever is smaller; no module after the last layer runs."""

    technique_type: ClassVar[type[EigenCAM]] = EigenCAM
    backend: ClassVar[str] = "hooks"

    def image_bytes(self, model: nn.Module, technique: EigenCAM, inputs: Inputs) -> int:
        """What is widest in a forward without graph; a layer twice in float64 is hardly wider."""
        return 2 * layers.peak_bytes(model, inputs)

    def compute(self, run: Run[EigenCAM]) -> Maps:
        """(N, 1, *places) for each layer."""
        once = layers.run_once(run.model, run.inputs, run.technique.layers)
        try:
            found = _mapped(run, stop=once)
        except LayerError:
            if not once:
                raise
            found = _mapped(run, stop=False)  # a model that shows its layers a batch in parts says what is wrong
        maps: Maps = {}
        with torch.no_grad(), torch.autocast(run.inputs.device.type, enabled=False):
            for name, activation in found.items():
                map_, run.extras[f"{SHARES} {name}"] = _component(activation.flatten(2), run.technique.centred)
                maps[name] = map_.unflatten(1, activation.shape[2:]).unsqueeze(1)
        return maps


def _mapped(run: Run[EigenCAM], *, stop: bool) -> Maps:
    """What the layers gave, as (N, D, *places).

    Raises:
        LayerError: One gave something else, or ran several times.
    """
    names, technique = run.technique.layers, run.technique
    with torch.no_grad(), capture(run.model, names, stop=stop) as caught:
        run.forward(run.inputs)
    if not caught.intact:
        return _mapped(run, stop=False)
    grids = {name: technique.grid(name, tuple(caught[name].shape), run.model, run.inputs) for name in names}
    for key, note in technique.notes(grids, run.inputs).items():
        run.note(key, note)
    return {name: grid.map(caught[name]) for name, grid in grids.items()}


def _component(activation: Tensor, centred: bool) -> tuple[Tensor, Tensor]:
    """(N, D, P) → (N, P), the projection on the first component, and (N, 2), the shares of two."""
    dtype = torch.promote_types(activation.dtype, torch.float32)
    wide = activation.to(dtype if activation.device.type == "mps" else torch.float64)  # eigenvalues are squares
    finite = wide.isfinite().all(dim=2).all(dim=1)[:, None]
    wide = torch.where(finite[..., None], wide, 0.0)  # torch finds no eigenvalues else, and the core tells of NaN
    if centred:
        wide = wide - wide.mean(dim=2, keepdim=True)
    channels, places = wide.shape[1:]
    gram = wide.mT @ wide if places < channels else wide @ wide.mT
    values, vectors = torch.linalg.eigh(gram)  # the largest last
    first, values = vectors[..., -1:], values.clamp(min=0)
    size = values[:, -1:].sqrt()
    map_ = (first.squeeze(2) * size) if places < channels else (first.mT @ wide).squeeze(1)
    along = (map_ * wide.sum(dim=1)).sum(dim=1, keepdim=True)  # λ · Σ v
    lost = along.abs() <= _ROUNDING * torch.finfo(dtype).eps * size**2 * channels**0.5
    peak = map_.gather(1, map_.abs().argmax(dim=1, keepdim=True))
    map_ = torch.where(finite, torch.where(torch.where(lost, peak, along) < 0, -map_, map_), torch.nan)
    two = torch.nn.functional.pad(values, (1, 0))[:, -2:].flip(1) / values.sum(dim=1, keepdim=True)
    return map_.to(dtype), two.nan_to_num(0.0).to(dtype)
