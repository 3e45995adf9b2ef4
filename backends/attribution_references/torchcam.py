"""CAMs as torch-cam computes them."""

from typing import ClassVar

import torch
from torch import Tensor

from attribution.attributor import Attributor, Run
from attribution.errors import LayerError
from attribution.technique import Maps
from attribution.techniques import ScoreCAM
from attribution.techniques.cam.family import CAM
from attribution_references.library import Facade, Layer, MaskedInputs, hooked, needed

_library = needed("torchcam", "torchcam", within="methods")

METHODS = {"grad_cam": "GradCAM", "layer_cam": "LayerCAM", "xgrad_cam": "XGradCAM", "grad_cam_plus_plus": "GradCAMpp"}
"""Its classes by our names."""


class TorchCAM(Attributor[CAM]):
    """What its classes give with ``normalized=False``, and before their ReLU.

    The activation and the gradient are those that its hooks store. One forward per layer, one backward per target.
    """

    technique_type: ClassVar[type[CAM]] = CAM
    backend: ClassVar[str] = "torchcam"
    reference: ClassVar[bool] = True

    def compute(self, run: Run[CAM]) -> Maps:
        """(N, T, *places) for each layer."""
        return {name: self._map(run, hooked(run, name)) for name in run.technique.layers}

    def _map(self, run: Run[CAM], layer: Layer) -> Tensor:
        cls = getattr(_library(), METHODS[run.technique.name])
        facade = Facade(run.inputs.device, layer.module)
        with cls(facade, "layer", reshape_transform=layer.reshape) as method, torch.enable_grad():
            method._relu = False
            scores = run.scores(run.forward(run.inputs.detach().requires_grad_()))
            try:
                maps = [
                    method([target] * len(scores), scores, normalized=False, retain_graph=True)[0].detach()
                    for target in range(scores.shape[1])
                ]
            except RuntimeError as error:
                if "not connected" not in str(error):
                    raise
                raise LayerError(f"layer {layer.name!r} has no influence on the score") from error
        return torch.stack(maps, dim=1).to(run.inputs.device)


class TorchScoreCAM(Attributor[ScoreCAM]):
    """What its ``ScoreCAM`` gives with ``normalized=False``, before its ReLU: one pass over the channels per target."""

    technique_type: ClassVar[type[ScoreCAM]] = ScoreCAM
    backend: ClassVar[str] = "torchcam"
    reference: ClassVar[bool] = True

    def compute(self, run: Run[ScoreCAM]) -> Maps:
        """(N, T, *places) for each layer."""
        with torch.no_grad():
            targets = run.scores(run.forward(run.inputs)).shape[1]
            return {name: self._map(run, hooked(run, name), targets) for name in run.technique.layers}

    def _map(self, run: Run[ScoreCAM], layer: Layer, targets: int) -> Tensor:
        maps = []
        for example in range(len(run.inputs)):
            facade = MaskedInputs(run, layer, example)
            with _library().ScoreCAM(facade, "layer", reshape_transform=layer.reshape) as method:
                method._relu = False
                facade(facade.shown)
                maps.append([method(target, normalized=False)[0] for target in range(targets)])
        return torch.cat([torch.stack(each, dim=1) for each in maps]).to(run.inputs.device)
