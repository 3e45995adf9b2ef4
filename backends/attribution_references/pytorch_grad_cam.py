"""CAMs as pytorch-grad-cam computes them."""

from types import FunctionType, MethodType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from attribution.attributor import Attributor, Run
from attribution.errors import InputError, LayerError
from attribution.technique import Maps
from attribution.techniques import EigenCAM, ScoreCAM
from attribution.techniques.cam.family import CAM
from attribution_references.library import Facade, Layer, MaskedInputs, hooked, needed

_library = needed("pytorch_grad_cam", "pytorch-grad-cam")

METHODS = {
    "grad_cam": "GradCAM",
    "hires_cam": "HiResCAM",
    "element_wise_cam": "GradCAMElementWise",
    "layer_cam": "LayerCAM",
    "xgrad_cam": "XGradCAM",
    "grad_cam_plus_plus": "GradCAMPlusPlus",
}
"""Its classes by our names, of those that take gradients."""


class PytorchGradCAM(Attributor[CAM]):
    """What its classes compute before their ReLU, their scaling to 0…1 and their mean over layers.

    The activation and the gradient are those that its hooks store. One forward per layer, one backward per target.
    """

    technique_type: ClassVar[type[CAM]] = CAM
    backend: ClassVar[str] = "pytorch_grad_cam"
    reference: ClassVar[bool] = True

    def compute(self, run: Run[CAM]) -> Maps:
        """(N, T, *places) for each layer.

        Raises:
            InputError: bfloat16, which numpy does not know.
        """
        _numpy_knows(run)
        return {name: self._map(run, hooked(run, name)) for name in run.technique.layers}

    def _map(self, run: Run[CAM], layer: Layer) -> Tensor:
        cls = getattr(_library(), METHODS[run.technique.name])
        method = cls(Facade(run.inputs.device), [layer.module], layer.reshape)
        store, maps = method.activations_and_grads, []
        try:
            with torch.enable_grad():
                inputs = run.inputs.detach().requires_grad_()
                leaves = [inputs.values[name] for name in inputs.explained]
                for column in run.scores(run.forward(inputs)).unbind(1):
                    store.gradients = []
                    # its own backward() would write into .grad of the user's parameters
                    torch.autograd.grad(column.sum(), leaves, retain_graph=True, allow_unused=True)
                    if not store.gradients:
                        raise LayerError(f"layer {layer.name!r} has no influence on the score")
                    maps.append(_image(method, layer, store.activations[-1], store.gradients[0]))
        finally:
            store.release()
        return torch.stack(maps, dim=1).to(run.inputs.device)


class PytorchEigenCAM(Attributor[EigenCAM]):
    """What its ``EigenCAM`` computes before its ReLU and its scaling; the sign is LAPACK's."""

    technique_type: ClassVar[type[EigenCAM]] = EigenCAM
    backend: ClassVar[str] = "pytorch_grad_cam"
    reference: ClassVar[bool] = True
    computes_in: ClassVar[torch.dtype] = torch.float32

    def compute(self, run: Run[EigenCAM]) -> Maps:
        """(N, 1, *places) for each layer.

        Raises:
            InputError: bfloat16, which numpy does not know, or a technique that is not centred.
        """
        _numpy_knows(run)
        if not run.technique.centred:
            raise InputError("pytorch-grad-cam's EigenCAM is centred; give centred=False to backend='hooks'")
        return {name: self._map(run, hooked(run, name)) for name in run.technique.layers}

    def _map(self, run: Run[EigenCAM], layer: Layer) -> Tensor:
        method = _library().EigenCAM(Facade(run.inputs.device), [layer.module], layer.reshape)
        store = method.activations_and_grads
        try:
            with torch.no_grad():
                run.forward(run.inputs)
            return _image(method, layer, store.activations[-1], None).unsqueeze(1).to(run.inputs.device)
        finally:
            store.release()


class PytorchScoreCAM(Attributor[ScoreCAM]):
    """What its ``ScoreCAM`` computes before its ReLU and its scaling: one pass over the channels for each target."""

    technique_type: ClassVar[type[ScoreCAM]] = ScoreCAM
    backend: ClassVar[str] = "pytorch_grad_cam"
    reference: ClassVar[bool] = True
    computes_in: ClassVar[torch.dtype] = torch.float32

    def compute(self, run: Run[ScoreCAM]) -> Maps:
        """(N, T, h, w) for each layer.

        Raises:
            InputError: bfloat16, which numpy does not know.
            LayerError: A layer of a volume, which the library cannot enlarge.
        """
        _numpy_knows(run)
        with torch.no_grad():
            return {name: self._map(run, hooked(run, name)) for name in run.technique.layers}

    def _map(self, run: Run[ScoreCAM], layer: Layer) -> Tensor:
        method = _library().ScoreCAM(Facade(run.inputs.device), [layer.module], layer.reshape)
        store = method.activations_and_grads
        try:
            targets = range(run.scores(run.forward(run.inputs)).shape[1])
            activation = store.activations[-1]
        finally:
            store.release()
        if activation.ndim != 4:
            raise LayerError(
                f"layer {layer.name!r} is one of a volume, and pytorch-grad-cam's ScoreCAM enlarges images"
            )
        weigh = type(method).get_cam_weights
        silent = SimpleNamespace(tqdm=lambda batches: batches)  # it shows a bar for each example
        own = FunctionType(weigh.__code__, {**weigh.__globals__, "tqdm": silent})
        method.get_cam_weights = MethodType(own, method)
        maps = []
        for example, each in enumerate(activation.split(1)):
            method.model = MaskedInputs(run, layer, example)
            found = [
                method.get_cam_image(
                    method.model.shown, layer.module, [lambda scores, t=t: scores[t]], each.numpy(), None, False
                )
                for t in targets
            ]
            maps.append(torch.from_numpy(np.stack(found, axis=1)))
        return torch.cat(maps).to(run.inputs.device)


def _image(method: Any, layer: Layer, activation: Tensor, gradient: Tensor | None) -> Tensor:
    """(N, *places) from its own method, which goes through numpy."""
    held = [None if each is None else each.numpy() for each in (activation, gradient)]
    with np.errstate(all="ignore"):
        return torch.from_numpy(method.get_cam_image(None, layer.module, None, *held, False))


def _numpy_knows(run: Run[Any]) -> None:
    if torch.bfloat16 in (run.inputs.dtype, run.execution.autocast):
        raise InputError("pytorch-grad-cam goes through numpy, which knows no bfloat16; give float32")
